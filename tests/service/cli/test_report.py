"""``lossd score --report`` and ``lossd report merge``: files to look at, and files that merge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from service.cli import app

RNG = np.random.default_rng(8)
LOGITS = RNG.normal(0, 3, (4, 6, 5, 5)).astype(np.float32)
LABELS = RNG.integers(0, 6, (4, 5, 5))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def ran(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: object) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr


def saved(folder: Path, name: str, start: int = 0, stop: int = 4) -> Path:
    path = folder / f"{name}.npz"
    np.savez(path, logits=LOGITS[start:stop], labels=LABELS[start:stop])
    return path


def test_parts_merge_to_the_report_of_the_whole(tmp_path: Path) -> None:
    cuts = {"whole": (0, 4), "first": (0, 1), "rest": (1, 4)}
    for name, (start, stop) in cuts.items():
        ran(
            "score", saved(tmp_path, name, start, stop), "--report", tmp_path / f"{name}.report.npz"
        )
    first, rest, whole = (tmp_path / f"{name}.report.npz" for name in ("first", "rest", "whole"))
    merged = tmp_path / "merged.npz"
    printed = ran("report", "merge", first, rest, "--report", merged, "--json")
    assert merged.read_bytes() == whole.read_bytes()
    numbers = tmp_path / "numbers.json"
    assert ran("score", tmp_path / "whole.npz", "--report", numbers, "--json") == printed
    assert json.loads(numbers.read_text()) == json.loads(printed)
    assert json.loads(printed)["images"] == {"count": 4, "height": 5, "width": 5}
    assert "best temperature" in ran("report", "merge", first)


def test_a_page_of_its_own(tmp_path: Path) -> None:
    path = saved(tmp_path, "images")
    text = ran("score", path, "--report", tmp_path / "out.html", "--worst", 3, "--bins", 4)
    assert text.splitlines()[0].startswith("loss ")
    page = (tmp_path / "out.html").read_text()
    assert "<title>images.npz" in page
    report = page.partition('id="report">')[2].partition("</script>")[0]
    found = json.loads(report)
    assert len(found["worst"]) == 3
    assert len(found["calibration"]["bins"]) == 4
    assert len(page.partition('id="arrays">')[2].partition("</script>")[0]) > LABELS.size * 16


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    path = saved(tmp_path, "whole")
    out = tmp_path / "out.npz"
    assert "must end in .html, .json or .npz" in refusal("score", path, "--report", "out.txt")
    assert "--bins is for a report" in refusal("score", path, "--bins", 3)
    assert "bins" in refusal("score", path, "--report", out, "--bins", 0)
    assert "layout" in refusal("score", path, "--report", out, "--layout", "round")
    assert "no state of a report" in refusal("report", "merge", path)
    assert "No such file" in refusal("report", "merge", tmp_path / "none.npz")
    ran("score", path, "--report", out)
    other = tmp_path / "other.npz"
    ran("score", path, "--report", other, "--bins", 3)
    assert "differ in bins, 15 and 3" in refusal("report", "merge", out, other)
    assert "out.html: " in refusal("score", path, "--report", tmp_path / "none" / "out.html")


@pytest.mark.parametrize("arguments", [("report",), ("report", "--help")])
def test_help_names_the_command(arguments: tuple[str, ...]) -> None:
    assert "merge" in run(*arguments).output
