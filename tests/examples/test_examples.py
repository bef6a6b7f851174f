"""Examples and blocks of the documentation run; examples show the losses that NumPy computes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.service.conftest import ROOT

EXAMPLES = ROOT / "examples"
LONGEST = 80  # lines
PATIENCE = 300  # seconds, for a compiler with empty caches on a busy machine

JAVA = ("-XX:TieredStopAtLevel=1", "-Xshare:auto")  # the shortest way to a small program's end
# By file: what skips it when it is missing, the command, and what has to be compiled before.
DEMOS: dict[str, tuple[str, list[str], list[str]]] = {
    "demo.py": ("Python", [sys.executable], []),
    "demo.sh": ("curl", ["sh"], []),
    "demo.mjs": ("node", ["node"], []),
    "demo.go": ("go", ["go", "run"], []),
    "Demo.java": ("java", ["java", *JAVA], []),
    "demo.cpp": ("g++", [], ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror"]),
    "demo.R": ("Rscript", ["Rscript"], []),
}
# Whether what a language needs besides itself is there, and its name.
NEEDS = {
    "demo.cpp": (
        "libcurl4-openssl-dev",
        ["g++", "-E", "-include", "curl/curl.h", "-xc++", os.devnull],
    ),
    "demo.R": (
        "r-cran-curl and r-cran-jsonlite",
        ["Rscript", "-e", "curl::nslookup; jsonlite::fromJSON"],
    ),
}


def environment() -> dict[str, str]:
    """This process's own, without a proxy: the server is on this machine."""
    proxies = {"http_proxy", "https_proxy", "all_proxy"}
    return {name: value for name, value in os.environ.items() if name.lower() not in proxies}


def ran(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, env=environment()
    )


def mean_loss(logits: Any, labels: Any) -> float:
    """In float64, of rows of logits."""
    wide = logits.astype(np.float64)
    log_sums = np.log(np.exp(wide).sum(-1))
    return float((log_sums - np.take_along_axis(wide, labels[:, None], -1)[:, 0]).mean())


def logits(count: int, classes: int) -> Any:
    return (np.arange(count * classes) * 7919 % 1009 / 100).astype(np.float32)


@pytest.fixture(scope="module")
def losses() -> dict[str, list[float]]:
    """Those of the three requests; with curl, all logits but the first request's are 0."""
    pixels = logits(4 * 256 * 256, 3).reshape(4, 3, -1).swapaxes(1, 2).reshape(-1, 3)
    images = mean_loss(pixels, np.arange(len(pixels)) * 31 % 3)
    bits = logits(64, 32000).view(np.uint32) >> 16
    halves = bits.astype(np.uint16).view(ml_dtypes.bfloat16).reshape(64, 32000)
    tokens = mean_loss(halves, np.arange(64) * 31 % 32000)
    return {"demo.sh": [1.572180, np.log(3), np.log(32000)], "": [1.572180, images, tokens]}


@pytest.mark.parametrize("name", DEMOS)
def test_every_language_shows_the_same_losses(
    url: str, losses: dict[str, list[float]], tmp_path: Path, name: str
) -> None:
    needed, command, compiler = DEMOS[name]
    if needed != "Python" and shutil.which(needed) is None:
        pytest.skip(f"needs {needed}")
    if name in NEEDS and ran(NEEDS[name][1]).returncode:
        pytest.skip(f"needs {NEEDS[name][0]}")
    program = [*command, str(EXAMPLES / name)]
    if compiler:
        program = [str(tmp_path / "demo")]
        compiled = ran([*compiler, "-o", *program, str(EXAMPLES / name), "-lcurl"])
        assert compiled.returncode == 0, compiled.stderr
    done = ran([*program, url])
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.findall(r"^(four rows|images|language model) .*?([\d.]+)\D*$", done.stdout, re.M)
    assert [title for title, _ in shown] == ["four rows", "images", "language model"]
    wanted = losses.get(name, losses[""])
    assert [float(value) for _, value in shown] == pytest.approx(wanted, abs=6e-5)
    refused = ran([*program, f"{url}/nothing"])
    assert refused.returncode != 0
    assert "404" in refused.stderr or "there is nothing at" in refused.stderr


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_examples_are_short_and_each_is_run(path: Path) -> None:
    assert path.name in {*DEMOS, "client.py"}
    assert len(path.read_text().splitlines()) <= (40 if path.name == "client.py" else LONGEST)


@pytest.fixture(scope="module")
def client() -> types.ModuleType:
    module = types.ModuleType("client")
    exec(compile((EXAMPLES / "client.py").read_text(), "client.py", "exec"), module.__dict__)
    return module


VIEWS = {
    "as they lie": lambda array: array,
    "transposed": lambda array: np.asfortranarray(array),
    "a slice": lambda array: np.repeat(array, 2, axis=1)[:, ::2],
    "backwards": lambda array: array[::-1, ::-1].copy()[::-1, ::-1],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_the_client_sends_views_as_what_they_hold(
    client: types.ModuleType, url: str, view: Any
) -> None:
    given = {"logits": np.arange(12, dtype=np.float32).reshape(3, 4) ** 1.1, "labels": np.arange(3)}
    answer = client.ask(
        f"{url}/v1/cross_entropy",
        {name: view(array) if array.ndim == 2 else array for name, array in given.items()},
        outputs="loss,rank",
    )
    assert answer["loss"] == pytest.approx(mean_loss(given["logits"], given["labels"]), rel=1e-6)
    assert answer["rank"].tolist() == [3, 2, 1]


def test_the_client_raises_what_the_server_says(client: types.ModuleType, url: str) -> None:
    with pytest.raises(client.Refused, match="labels is missing") as caught:
        client.ask(f"{url}/v1/cross_entropy", {"logits": np.zeros((2, 3), np.float32)})
    assert caught.value.problem["status"] == 422


def test_the_client_shows_itself(url: str) -> None:
    done = ran([sys.executable, str(EXAMPLES / "client.py"), url])
    assert (done.returncode, done.stderr) == (0, "")
    assert "'rank': array([1, 1]" in done.stdout


RECIPES = {
    f"{path.relative_to(ROOT)}-{number}": recipe
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, recipe in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_recipes_of_the_documentation_run(url: str, recipe: str) -> None:
    local = recipe.replace("127.0.0.1:8000", url.removeprefix("http://"))
    if local == recipe:  # of the kernels alone: in this process, which has loaded them
        exec(compile(recipe, "recipe", "exec"), {})
        return
    done = ran([sys.executable, "-c", local])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_recipes_of_the_documentation_send_contiguous_arrays(recipe: str) -> None:
    """Safetensors' own ``save`` writes what lies in memory, whatever the strides say."""
    assert ("save(" in recipe) <= ("np.ascontiguousarray(" in recipe)


def test_the_curl_command_of_readme_is_answered_as_it_says(url: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    found = re.search(r"```sh\n(curl .*?)\n# (.*?)\n```", (ROOT / "README.md").read_text(), re.S)
    assert found is not None
    done = ran(["sh", "-c", found[1].replace("127.0.0.1:8000", url.removeprefix("http://"))])
    assert (done.returncode, done.stdout) == (0, f"{found[2]}\n")
