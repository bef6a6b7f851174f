"""Files of reports: a page to look at, the numbers, or the state that merges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from kernels.report import Report, begin, in_steps, numbers
from service import page
from service.cli import fail
from service.codecs import Encoded
from service.codecs.base import Array
from service.codecs.json.values import written
from service.codecs.safetensors import CODEC
from service.options import ReportOptions

WRITTEN = (
    "`.html`, a page of its own; `.json`, the numbers; `.npz`, what `lossd report merge` reads"
)

# Positions, at most, whose maps are in a page: 22 MB of text.
_MAPPED = 1 << 20


def read(path: Path) -> Report:
    """Report in the .npz file ``path``. Raises ``InvalidInput`` and ``OSError``."""
    return Report.from_bytes(path.read_bytes())


def suffix(path: Path) -> str:
    """Suffix of the report ``path``, which says what is written. Raises ``typer.Exit``."""
    found = path.suffix.lower()
    if found not in (".html", ".json", ".npz"):
        raise fail(f"--report {path}: the name must end in .html, .json or .npz")
    return found


def write(path: Path, report: Report, maps: Mapping[str, Array], title: str) -> None:
    """Write ``report`` as the suffix of ``path`` says, with its ``maps``. Raises ``typer.Exit``."""
    kind = suffix(path)
    if kind == ".npz":
        content = report.to_bytes()
    else:
        content = written(numbers(report))
        if kind == ".html":
            content = page.standalone(content, _arrays(content, maps), title).encode()
    try:
        path.write_bytes(content)
    except OSError as error:
        raise fail(f"{path}: {error.strerror or error}") from None


def computed(
    tensors: Mapping[str, Array], chosen: ReportOptions, advance: Callable[[float], object]
) -> tuple[Report, Mapping[str, Array]]:
    """Report of ``tensors``, and its maps where a page has room for them and draws them.

    ``advance`` is called with shares of the work as they are done, 1 in total. Raises
    ``InvalidInput``.
    """
    arguments = {**tensors, **{name: value for name, value in chosen if name != "device"}}
    problem, report = begin(**arguments)
    maps = report.form.layout != "flat" and report.positions <= _MAPPED
    steps = in_steps(problem, report, maps)
    reached, size = 0, max(1, problem.logits.nbytes)
    before = 0
    while True:
        try:
            reach = next(steps)
        except StopIteration as stopped:
            advance((size - before) / size)
            arrays: Mapping[str, Array] = stopped.value
            return report, arrays
        advance((reached - before) / size)
        before, reached = reached, reach


def _arrays(text: bytes, maps: Mapping[str, Array]) -> bytes:
    if not maps:
        return b""
    encoded = CODEC.encode({"report": np.frombuffer(text, np.uint8), **maps})
    if isinstance(encoded, Encoded):
        return b"".join((encoded.content, *encoded.more))
    return bytes(encoded)


def summary(report: Report, as_json: bool) -> str:
    """The numbers as one line of JSON, or the most important ones as a few lines."""
    found = numbers(report)
    if as_json:
        return written(found).decode()
    ignored = found["positions"] - found["count"]
    calibration = found["calibration"]
    rows = {
        "loss": f"{found['loss']:.6g}",
        "perplexity": f"{found['perplexity']:.6g}",
        "accuracy": f"{found['accuracy']:.2%}",
        "elements": f"{found['count']:,}" + (f" ({ignored:,} more ignored)" if ignored else ""),
        "ECE": f"{calibration['ece']:.2%}",
        "best temperature": f"{calibration['temperature']['best']:.4g}",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())
