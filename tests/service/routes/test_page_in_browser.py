"""The page in a real browser: its numbers against the oracle's, its words, barriers and screens."""

from __future__ import annotations

import base64
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from service import page
from tests import oracle
from tests.kernels.test_worked_example import LOG_SOFTMAX, PRED, TARGET
from tests.service import wire
from tests.service.routes.conftest import PATIENCE, TOKEN

CHAIN, FILE = "#view-chain", "#view-file"
MINUS = "\N{MINUS SIGN}"
REFUSED = "Failed to load resource: the server responded with a status of 4"
# Contrast takes seconds where there are many numbers; the others have no colours of their own.
CONTRASTS = {"chain", "chain-refused", "file", "file-classifier"}
WIDTHS, THEMES = (1280, 390), ("light", "dark")


class Tab:
    """The page at ``base``: its parts by CSS selectors, waited for."""

    def __init__(self, browser: Any, base: str) -> None:
        self.browser, self.base = browser, base
        self._wait = WebDriverWait(browser, PATIENCE, poll_frequency=0.02)
        self.screen(1280, "light")

    def open(self, fragment: str = "", view: str = CHAIN, state: str = "done") -> None:
        # Another fragment alone would load nothing.
        self.browser.get("about:blank")
        self.browser.get(self.base + fragment)
        if state:
            self.until(view, state)

    def until(self, view: str, state: str) -> None:
        """Wait until ``view`` is in ``state``, and no request is on its way."""
        self._wait.until(lambda _: self.part(view).get_attribute("data-state") == state)

    def wait(self, true: Callable[[], Any]) -> Any:
        return self._wait.until(lambda _: true())

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.browser.find_elements(By.CSS_SELECTOR, selector)
        return found

    def part(self, selector: str) -> Any:
        return self.wait(lambda: self.all(selector))[0]

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements of ``selector``, shown or not, in one call."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
        found: list[str] = self.browser.execute_script(script, selector)
        return found

    def text(self, selector: str) -> str:
        return self.texts(selector)[0]

    def numbers(self, selector: str) -> list[float]:
        return [float(text.replace(MINUS, "-")) for text in self.texts(selector)]

    def click(self, text: str, within: str = "body") -> None:
        """Click the button of that text."""
        script = """
        const found = [...document.querySelector(arguments[1]).querySelectorAll("button")]
            .find((button) => button.textContent === arguments[0]);
        found.click();
        """
        self.browser.execute_script(script, text, within)

    def type(self, selector: str, text: str) -> None:
        self.part(selector).send_keys(Keys.CONTROL, "a", Keys.NULL, text)

    def choose(self, path: Path, state: str = "done") -> None:
        """Choose the file at ``path``, and wait for what becomes of it."""
        self.browser.execute_script("delete document.querySelector('#view-file').dataset.state")
        self.part("#file-input").send_keys(str(path))
        self.until(FILE, state)

    def drop(self, name: str, content: bytes) -> None:
        """Drop a file of that ``content`` on the page, as a file manager does."""
        script = """
        const bytes = Uint8Array.from(atob(arguments[1]), (letter) => letter.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], arguments[0]));
        for (const kind of ["dragover", "drop"]) {
            document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
        }
        """  # noqa: E501
        self.browser.execute_script(script, name, base64.b64encode(content).decode())

    def screen(self, width: int, theme: str) -> None:
        command = self.browser.execute_cdp_cmd
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        command("Emulation.setDeviceMetricsOverride", size)
        # Without motion: a colour halfway to another has some other contrast.
        wishes = {"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        command("Emulation.setEmulatedMedia", {"features": features})
        shown = "return document.documentElement.dataset.theme ?? arguments[0]"
        self.wait(lambda: self.browser.execute_script(shown, theme) == theme)

    def errors(self) -> list[str]:
        """Errors on the console since the last call."""
        lines = self.browser.get_log("browser")
        return [line["message"] for line in lines if line["level"] == "SEVERE"]


@pytest.fixture
def tab(browser: Any, live_server: httpx.URL) -> Iterator[Tab]:
    tab = Tab(browser, f"{live_server}/")
    tab.errors()
    yield tab
    assert [line for line in tab.errors() if REFUSED not in line] == []


def cells(step: int) -> str:
    return f"#view-chain .step:nth-child({step}) tbody td"


def readout(step: int) -> str:
    return f"#view-chain .step:nth-child({step}) .readout"


def computed(formula: str) -> tuple[float, float]:
    """Value of a formula of the page, computed here, and the result that it states."""
    _, _, formula = formula.partition(": ")
    *_, left, right = formula.replace(MINUS, "-").split(" = ")
    left = left.replace("\N{MULTIPLICATION SIGN}", "*").replace("\N{DIVISION SIGN}", "/")
    left = re.sub(r"e\^(\([^()]*\)|-?[\d.]+)", r"exp(\1)", left)
    assert re.fullmatch(r"(?:exp|log|[-+*/(). \d])+", left), left
    return float(eval(left, {"exp": math.exp, "log": math.log})), float(right)


def test_the_worked_example_and_what_follows_an_edit(tab: Tab) -> None:
    tab.open()
    log_softmax = np.array(LOG_SOFTMAX)
    assert tab.numbers(cells(3)) == pytest.approx(log_softmax.ravel(), abs=1e-4)
    assert tab.numbers(cells(2)) == pytest.approx(np.exp(log_softmax).ravel(), abs=1e-4)
    assert tab.numbers(cells(4)) == [1.6094, 2.1326, 0.9373, 1.6094]
    assert tab.numbers(".loss-value") == [1.5722]
    assert tab.numbers(".routes div:not(.right) dd") == pytest.approx([1.5721803] * 3, abs=2e-7)
    assert tab.texts(".routes .right dt") == ["✓ They agree"]

    # One stop of the tab key a table, arrow keys within, and each cell tells its formula.
    tab.browser.execute_script("document.querySelector(arguments[0]).focus()", cells(3))
    for key in (Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT):
        tab.browser.switch_to.active_element.send_keys(key)
    told = tab.text(readout(3))
    assert told == f"Row 2, class 1: 3 {MINUS} log(e^1 + e^3 + e^2 + e^3 + e^0) = {MINUS}0.9373"

    tab.type('[data-field="logits"][data-at="1,4"]', "2.5")
    logits = PRED.copy()
    logits[1, 4] = 2.5
    want = float(oracle.cross_entropy(logits, TARGET))
    tab.wait(lambda: tab.texts(".loss-value") == [f"{want:.4f}"])
    # The address holds the state: who opens it sees the same.
    tab.open(tab.browser.current_url.partition("/#")[2].join(["#", ""]))
    assert tab.numbers(".loss-value") == [round(want, 4)]


def test_formulas_and_sentences_are_those_of_the_options(tab: Tab) -> None:
    tab.open("#chain?weight=1,2,0.5,1,3&temperature=2&label_smoothing=0.1")
    show = "document.querySelectorAll(arguments[0])[arguments[1]].focus()"
    for step, count in ((2, 20), (3, 20), (4, 4)):
        for at in range(count):
            tab.browser.execute_script(show, cells(step), at)
            told = tab.text(readout(step))
            assert told.startswith(f"Row {at // (count // 4)}")
            value, stated = computed(told)
            # The numbers in a formula have four digits after the point.
            assert value == pytest.approx(stated, abs=3e-4), told
    assert "e^(logit/2)" in tab.text("#view-chain .step:nth-child(2) .lede")
    assert "weight" in tab.text("#view-chain .step:nth-child(4) .lede")
    assert "label_smoothing=0.1" in tab.text(".routes div:nth-child(3) dt")

    # What is shown follows an edit: nobody has to point at the cell again.
    tab.browser.execute_script(show, cells(4), 1)  # the other rows have equal losses at any T
    before = tab.texts(".readout")
    tab.type("#option-temperature", "0.5")
    tab.wait(lambda: not {*before} & {*tab.texts(".readout")})
    assert all(abs(a - b) < 3e-4 for a, b in (computed(tab.text(readout(s))) for s in (2, 3, 4)))
    assert "e^(logit/0.5)" in tab.text("#view-chain .step:nth-child(2) .lede")

    # A control that builds the tables anew keeps the focus.
    add = "[...document.querySelectorAll('button')].find(b => b.textContent === 'Add a row')"
    tab.browser.execute_script(f"const b = {add}; b.focus(); b.click()")
    assert tab.browser.switch_to.active_element.text == "Add a row"


def test_each_option_is_the_services(tab: Tab) -> None:
    tab.open("#chain?weight=1,2,0.5,1,3&temperature=0.5&label_smoothing=0.1&ignore_index=2")
    want = oracle.cross_entropy(
        PRED,
        TARGET,
        weight=np.array([1, 2, 0.5, 1, 3]),
        temperature=0.5,
        label_smoothing=0.1,
        ignore_index=2,
    )
    assert tab.numbers(".loss-value") == [round(float(want), 4)]
    assert tab.texts(cells(4))[3] == "ignored"
    assert tab.texts(".routes .right dt") == ["✓ They agree"]

    tab.click("sum", ".controls")
    tab.type("#option-temperature", "2")
    tab.type("#option-label_smoothing", "0")
    tab.click("all 1", ".controls")
    want = oracle.cross_entropy(PRED, TARGET, temperature=2, ignore_index=2, reduction="sum")
    tab.wait(lambda: tab.texts(".loss-value") == [f"{float(want):.4f}"])


@pytest.mark.parametrize(
    ("selector", "text", "said"),
    [
        ('[data-field="labels"][data-at="2"]', "9", "labels[2] is 9; with 5 classes"),
        ('[data-field="logits"][data-at="1,3"]', "abc", "logits"),
        ("#option-temperature", "0", "temperature: input should be greater than"),
    ],
)
def test_the_services_own_words_stand_at_the_field(
    tab: Tab, selector: str, text: str, said: str
) -> None:
    tab.open()
    tab.type(selector, text)
    tab.until(CHAIN, "refused")
    assert tab.part(selector).get_attribute("aria-invalid") == "true"
    [problem] = [element for element in tab.all(".problem") if element.is_displayed()]
    assert said in problem.text
    tab.click("Reset")
    tab.until(CHAIN, "done")
    assert not [element for element in tab.all(".problem") if element.is_displayed()]


def test_the_wrong_transposition_is_shown_as_wrong(tab: Tab) -> None:
    tab.open("#chain?example=images")
    script = "return ['logits', 'labels'].map(f => [...document.querySelectorAll(`[data-field=${f}]`)].map(e => Number(e.value)))"  # noqa: E501
    shown = []
    for image in (0, 1):
        tab.click(f"image {image}")
        tab.until(CHAIN, "done")
        shown.append(tab.browser.execute_script(script))
    logits = np.array([image[0] for image in shown]).reshape(2, 3, 4, 4)
    labels = np.array([image[1] for image in shown]).reshape(2, 4, 4).astype(int)
    right = float(oracle.cross_entropy(logits, labels))
    one_hot = np.eye(3)[labels]
    log_probs = oracle.log_softmax(logits, 1)
    wrong = float(-(np.swapaxes(one_hot, 1, 3) * log_probs).sum() / labels.size)
    assert tab.numbers(".side strong") == [round(right, 4), round(wrong, 4)]
    said, _, apart = tab.text(".side .wrong").rstrip(".").rpartition(" ")
    assert said == "✗ Rows and columns change places, too: the loss is off by"
    assert float(apart) == pytest.approx(wrong - right, abs=1e-4)


def test_the_code_that_is_copied_runs(tab: Tab) -> None:
    tab.open("#chain?temperature=2")
    tab.click("Python", ".code")
    code = tab.text(".code pre")
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    want = float(oracle.cross_entropy(PRED, TARGET, temperature=2))
    assert f"'cross_entropy': {want:.6f}"[:-1] in printed.stdout
    tab.click("curl", ".code")
    assert tab.text(".code pre").startswith(f"curl -s {tab.base}v1/explain")
    tab.click("Copy", ".code")
    tab.wait(lambda: tab.texts(".said") == ["Copied."])


def miscalibrated(rows: int = 600, classes: int = 8, scale: float = 2.5) -> dict[str, wire.Array]:
    """Logits that are ``scale`` times too large for the labels, drawn from their softmax."""
    rng = np.random.default_rng(17)
    honest = rng.normal(0, 1.5, (rows, classes))
    noise = rng.gumbel(size=honest.shape)
    return {
        "labels": (honest + noise).argmax(1).astype(np.int64),
        "logits": (scale * honest).astype(np.float32),
    }


def tile(tab: Tab, name: str) -> str:
    names = tab.texts(".tiles dt")
    return tab.texts(".tiles dt + dd")[names.index(name)]


def test_each_kind_of_file_is_drawn(tab: Tab, tmp_path: Path) -> None:
    tensors = miscalibrated()
    want = float(oracle.cross_entropy(tensors["logits"], tensors["labels"]))
    accuracy = float((tensors["logits"].argmax(1) == tensors["labels"]).mean())
    bodies = {
        "stored.npz": wire.npz_body(tensors),
        "deflated.npz": wire.npz_body(tensors, compressed=True),
        "some.safetensors": wire.safetensors_body(tensors),
    }
    tab.open("#file", state="")
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(body)
        tab.choose(tmp_path / name)
        assert tab.text(".file-name") == name
        assert tile(tab, "Loss") == f"{want:.4f}"
        assert tile(tab, "Accuracy") == f"{100 * accuracy:.1f}\xa0%"
    # Dropped anywhere on the page, it shows the view of files.
    tab.open()
    tab.drop("some.safetensors", bodies["some.safetensors"])
    tab.until(FILE, "done")
    assert tile(tab, "Loss") == f"{want:.4f}"
    assert tab.part(FILE).is_displayed()


def test_the_best_temperature_is_found(tab: Tab, tmp_path: Path) -> None:
    path = tmp_path / "overconfident.npz"
    path.write_bytes(wire.npz_body(miscalibrated()))
    tab.open("#file", state="")
    tab.choose(path)
    best = float(tab.text(".best-temperature"))
    assert 2 < best < 3  # 2.5 made the labels; 600 of them leave some doubt
    assert tab.text(".verdict").startswith("The model is overconfident")
    assert f"temperature {best:.2f}" in tab.text(".findings")
    before = tile(tab, "ECE")
    tab.click("Use the best")
    tab.wait(lambda: tab.text(".temperature .readout").startswith("At temperature"))
    tensors = miscalibrated()
    want = oracle.cross_entropy(tensors["logits"], tensors["labels"], temperature=best)
    said = tab.text(".temperature .readout").partition("loss ")[2].split(",")[0]
    assert float(said) == pytest.approx(float(want), abs=1e-3)
    assert float(tile(tab, "ECE").split()[0]) < float(before.split()[0]) / 2


@pytest.mark.parametrize(("scale", "side"), [(2.5, "over"), (0.4, "under")])
def test_the_gap_of_a_bin_lies_between_its_accuracy_and_its_confidence(
    tab: Tab, tmp_path: Path, scale: float, side: str
) -> None:
    path = tmp_path / f"{side}.npz"
    path.write_bytes(wire.npz_body(miscalibrated(scale=scale)))
    tab.open("#file", state="")
    tab.choose(path)
    script = """
    const bins = [...document.querySelectorAll("#report-calibration .bin")];
    const grid = [...document.querySelectorAll("#report-calibration line.grid")];
    const [zero, one] = [grid.at(0), grid.at(-1)].map((line) => line.y1.baseVal.value);
    const ends = (rect) => rect && ["y", "height"].map((name) => Number(rect.getAttribute(name)));
    const shares = (rect) => rect && [ends(rect)[0] + ends(rect)[1], ends(rect)[0]].map((y) => (zero - y) / (zero - one));
    return bins.map((bin) => [shares(bin.querySelector(".bar")), shares(bin.querySelector(".gap rect")),
        bin.querySelector(".gap")?.classList[1]]);
    """  # noqa: E501
    drawn = tab.browser.execute_script(script)
    rows = tab.texts("#report-calibration tbody tr td")
    shares = [float(text.split()[0]) / 100 if "%" in text else math.nan for text in rows]
    sides = []
    for (bar, gap, name), (accuracy, confidence) in zip(
        drawn, zip(shares[1::3], shares[2::3], strict=True), strict=True
    ):
        if math.isnan(accuracy):
            assert (bar, gap) == (None, None)
            continue
        assert bar == pytest.approx([0, accuracy], abs=1e-3)
        if gap:
            assert gap[1] == pytest.approx(max(accuracy, confidence), abs=1e-3)
            assert gap[1] - gap[0] >= abs(accuracy - confidence) - 1e-3
            assert name == ("over" if confidence > accuracy else "under")
            sides.append(name)
    assert sides.count(side) > len(sides) / 2
    assert [len(tab.all(f"#report-calibration .k-{name}")) for name in ("over", "under")] == [1, 1]


def test_ignored_pixels_are_shown_as_ignored(tab: Tab, tmp_path: Path) -> None:
    rng = np.random.default_rng(23)
    labels = rng.integers(0, 3, (2, 12, 16))
    logits = 3 * np.moveaxis(np.eye(3)[labels], -1, 1) + rng.normal(0, 1, (2, 3, 12, 16))
    labels[0, :, 0] = labels[0, 2, 5] = 255
    logits[1, :, 7, 9] = np.eye(3)[(labels[1, 7, 9] + 1) % 3] * 40
    path = tmp_path / "ignored.npz"
    path.write_bytes(
        wire.npz_body({"logits": logits.astype(np.float32), "labels": labels.astype(np.uint8)})
    )
    tab.open("#file", state="")
    tab.browser.execute_script("document.querySelector('.options').open = true")
    tab.type("#file-ignore_index", "255")
    tab.choose(path)
    assert tab.text(".pager output") == "image 2 of 2 (index 1)"
    assert tab.text("#report-map .k-ignored") == "ignored: does not count"
    tab.part(".pager button").click()
    assert tab.text(".pager output") == "image 1 of 2 (index 0)"
    assert tab.part(".ring").is_displayed()  # each image has its own worst pixel
    tab.part("#report-map canvas").send_keys(Keys.ARROW_RIGHT)
    said = tab.text("#report-map .readout")
    assert said.startswith("Image 0, row 0, column 0: label 255, ignored, so it does not count, ")
    assert "loss" not in said
    assert "loss" in tab.text("#report-map .lede")
    tab.click("confidence", "#report-map")
    assert "confidence" in tab.text("#report-map .lede")
    assert tab.text("#report-map .readout") == said
    # Greys, which no ramp has, and only where the label is ignored.
    script = """
    const canvas = document.querySelector("#report-map canvas");
    const [wide, tall] = [canvas.width / 16, canvas.height / 12];
    return Array.from({ length: 192 }, (_, at) => [...canvas.getContext("2d").getImageData(
        Math.floor((at % 16 + 0.5) * wide), Math.floor((Math.floor(at / 16) + 0.5) * tall), 1, 1).data]);
    """  # noqa: E501
    checks = {(0xA9, 0xAF, 0xB6), (0xC6, 0xCB, 0xD0)}  # theme.css: --ignored, --ignored-too
    shown = [tuple(pixel[:3]) in checks for pixel in tab.browser.execute_script(script)]
    assert shown == (labels[0].ravel() == 255).tolist()


def test_the_worst_pixel_of_a_large_image_is_found(tab: Tab, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, (1, 512, 512))
    logits = 4 * np.moveaxis(np.eye(3)[labels], -1, 1) + rng.normal(0, 1, (1, 3, 512, 512))
    row, column = 137, 401
    labels[0, row, column] = 2
    logits[0, :, row, column] = 0, 30, 0
    path = tmp_path / "images.safetensors"
    tensors = {"labels": labels.astype(np.int32), "logits": logits.astype(np.float32, order="C")}
    path.write_bytes(wire.safetensors_body(tensors))
    tab.open("#file", state="")
    tab.choose(path)
    assert f"image 0, row {row}, column {column}" in tab.text(".findings li")
    script = """
    const [ring, canvas] = [".ring", "#report-map canvas"].map((name) => document.querySelector(name).getBoundingClientRect());
    return [ring.x + ring.width / 2 - canvas.x - arguments[0] * canvas.width, ring.y + ring.height / 2 - canvas.y - arguments[1] * canvas.height];
    """  # noqa: E501
    for width in WIDTHS:
        tab.screen(width, "light")
        offset = tab.browser.execute_script(script, (column + 0.5) / 512, (row + 0.5) / 512)
        assert offset == pytest.approx([0, 0], abs=0.51), width
    tab.screen(1280, "light")
    assert tab.part(".ring").is_displayed()
    tab.click(f"0, {row}, {column}", "#report-worst")
    said = tab.text("#report-map .readout")
    assert said.startswith(f"Image 0, row {row}, column {column}: ")
    assert "loss 30.0" in said
    assert "predicted 1" in said
    # By the arrow keys, too.
    tab.part("#report-map canvas").send_keys(Keys.ARROW_LEFT)
    assert f"column {column - 1}: " in tab.text("#report-map .readout")


def test_a_thousand_classes(tab: Tab, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 1000, 800)
    logits = rng.normal(0, 1, (800, 1000)).astype(np.float32)
    logits[np.arange(800), labels] += 3
    path = tmp_path / "many.npz"
    path.write_bytes(wire.npz_body({"logits": logits, "labels": labels}))
    tab.open("#file", state="")
    tab.choose(path)
    assert not tab.all("#report-confusion .matrix")
    assert len(tab.all("#report-classes tbody tr")) == 15
    tab.click("Show all 1,000", "#report-classes")
    assert len(tab.all("#report-classes tbody tr")) == 1000
    tab.click("labels", "#report-classes")
    counts = [int(text) for text in tab.texts("#report-classes tbody td:nth-child(4)")]
    assert counts == sorted(np.bincount(labels, minlength=1000), reverse=True)


def test_what_cannot_be_read_is_said_at_its_field(tab: Tab, tmp_path: Path) -> None:
    tensors = miscalibrated(20)
    whole = wire.safetensors_body(tensors)
    renamed = {"outputs": tensors["logits"], "truth": tensors["labels"]}
    cases = {
        "names.npz": (wire.npz_body(renamed), "A file needs the arrays logits and labels"),
        "cut.safetensors": (whole[:-10], "do not fit"),
        "empty.npz": (b"", "does not end as a zip archive"),
        "without.npz": (wire.npz_body({"logits": tensors["logits"]}), "labels is missing"),
        "notes.txt": (b"hello", "neither .npz nor .safetensors"),
        "large.npz": (bytes(2**24 + 1), "this server takes at most 16 MiB"),
    }
    good = tmp_path / "good.npz"
    good.write_bytes(wire.npz_body(tensors))
    tab.open("#file", state="")
    tab.choose(good)
    for name, (content, said) in cases.items():
        (tmp_path / name).write_bytes(content)
        tab.choose(tmp_path / name, "refused")
        [problem] = [element for element in tab.all(".problem") if element.is_displayed()]
        assert problem.text.startswith(f"{name}: "), name
        assert said in problem.text, name
        # What a file needs is to be read, and the last report that there was.
        assert tab.part(".needs").is_displayed()
        assert tab.part(".file-name").text == "good.npz"
    tab.browser.execute_script("document.querySelector('.options').open = true")
    tab.type("#file-temperature", "hot")
    tab.choose(good, "refused")
    assert tab.part("#file-temperature").get_attribute("aria-invalid") == "true"
    assert "temperature" in tab.part('#view-file [data-problem="temperature"]').text
    tab.browser.execute_script("delete document.querySelector('#view-file').dataset.state")
    tab.type("#file-temperature", "2")
    tab.part("#file-temperature").send_keys(Keys.ENTER)
    tab.until(FILE, "done")
    top = "return document.querySelector('.file-name').getBoundingClientRect().top"
    assert 0 <= tab.browser.execute_script(top) < 100
    want = oracle.cross_entropy(tensors["logits"], tensors["labels"], temperature=2)
    assert tile(tab, "Loss") == f"{float(want):.4f}"


def test_an_upload_can_be_cancelled(tab: Tab, tmp_path: Path) -> None:
    path = tmp_path / "slow.npz"
    path.write_bytes(bytes(2**22))
    tab.open("#file", state="")
    command = tab.browser.execute_cdp_cmd
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 65536}
    command("Network.enable", {})
    command("Network.emulateNetworkConditions", slow)
    try:
        tab.choose(path, "sending")
        tab.click("Cancel")
        tab.until(FILE, "refused")
    finally:
        command("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
        command("Network.disable", {})
    assert "slow.npz: cancelled." in tab.texts(".problem")


def test_below_a_prefix_and_with_a_token(browser: Any, guarded: str, tmp_path: Path) -> None:
    tab = Tab(browser, guarded)
    tab.open(state="refused")
    assert tab.part("#token").is_displayed()
    tab.type("#token-field", "wrong")
    tab.click("Use it")
    tab.wait(lambda: "not accepted" in tab.text('#token [data-problem="authorization"]'))
    tab.type("#token-field", TOKEN)
    tab.click("Use it")
    tab.until(CHAIN, "done")
    assert tab.numbers(".loss-value") == [1.5722]
    path = tmp_path / "some.npz"
    path.write_bytes(wire.npz_body(miscalibrated(50)))
    tab.browser.execute_script("document.querySelector('#tab-file').click()")
    tab.choose(path)
    # The token is in this tab's storage alone.
    script = "return [sessionStorage.length, localStorage.length, document.cookie]"
    assert browser.execute_script(script) == [1, 0, ""]
    browser.execute_script("sessionStorage.clear()")
    assert [line for line in tab.errors() if REFUSED not in line] == []


def saved_report(tab: Tab, folder: Path) -> str:
    """The address of a file that holds a report of its own."""
    tensors = miscalibrated(200)
    headers = {"content-type": wire.NPZ, "accept": wire.SAFETENSORS}
    url, body = f"{tab.base}v1/report", wire.npz_body(tensors)
    answer = httpx.post(url, content=body, headers=headers, timeout=PATIENCE, trust_env=False)
    report = wire.tensors_of(answer)["report"].tobytes()
    path = folder / "report.html"
    path.write_text(page.standalone(report, answer.content, "A <report> of </script>"))
    assert json.loads(report)["count"] == 200
    return path.as_uri()


def test_every_view_on_every_screen(tab: Tab, tmp_path: Path) -> None:
    """No barrier that axe-core knows, and nothing wider than the screen, in both themes.

    Pictures of each are written to the folder that SCREENSHOTS names, if it does: look at them.
    """
    axe = (files("selenium_axe_python") / "axe-core" / "axe.min.js").read_text()

    def example(name: str) -> Callable[[], None]:
        def show() -> None:
            tab.open("#file", state="")
            tab.click(name, FILE)
            tab.until(FILE, "done")

        return show

    def saved() -> None:
        tab.browser.get(saved_report(tab, tmp_path))
        assert tab.text("h1") == "A <report> of </script>"
        assert not tab.all(".slide")

    def refused() -> None:
        tab.open()
        tab.type('[data-field="labels"][data-at="2"]', "9")
        tab.until(CHAIN, "refused")

    views: dict[str, Callable[[], None]] = {
        "chain": tab.open,
        "chain-images": lambda: tab.open("#chain?example=images"),
        "chain-refused": refused,
        "file": lambda: tab.open("#file", state=""),
        "file-classifier": example("A classifier"),
        "file-images": example("Images"),
        "file-text": example("Text"),
        "saved": saved,
    }
    for name, show in views.items():
        tab.screen(1280, "light")
        show()
        tab.browser.execute_script(axe)
        for width in WIDTHS:
            for theme in THEMES:
                tab.screen(width, theme)
                look(tab, f"{name}-{width}-{theme}")
                contrast = name in CONTRASTS
                if width == 1280 and (contrast or theme == "light"):
                    assert barriers(tab, contrast=contrast) == [], f"{name}, {theme}"


def look(tab: Tab, name: str) -> None:
    """Check that all of the page fits the screen, and write a picture of it if it is wanted."""
    sizes = (
        "const e = document.documentElement; return [e.scrollWidth, e.clientWidth, e.scrollHeight]"
    )
    wide, width, height = tab.browser.execute_script(sizes)
    assert wide <= width, name
    if "SCREENSHOTS" in os.environ:
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        options = {"captureBeyondViewport": True, "clip": clip}
        shot = tab.browser.execute_cdp_cmd("Page.captureScreenshot", options)
        path = Path(os.environ["SCREENSHOTS"]) / f"{name}.png"
        path.write_bytes(base64.b64decode(shot["data"]))


def barriers(tab: Tab, *, contrast: bool) -> list[Any]:
    """Violations that axe-core finds on the page, with their elements."""
    run = """
    axe.run({ resultTypes: ["violations"], rules: { "color-contrast": { enabled: arguments[0] } } })
        .then((found) => arguments[1](
            found.violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)])));
    """
    found: list[Any] = tab.browser.execute_async_script(run, contrast)
    return found
