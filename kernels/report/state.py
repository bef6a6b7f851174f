"""Report of the losses of many positions: state that steps are added to, and that merges.

All of it is integers, exact sums, extremes, and choices by value, so that any split of the
positions merges to the same bits.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kernels.dtypes import BY_NAME
from kernels.errors import InvalidInput
from kernels.report import histogram
from kernels.report.calibration import Calibration
from kernels.report.classes import Classes, Losses
from kernels.report.exact import ExactSums
from kernels.report.sample import Sample
from kernels.report.step import Step, joined
from kernels.report.worst import Worst

Array = np.ndarray[Any, Any]

_FORMAT = "lossd report 1"
# Positions that wait to be added up: NumPy's functions take a microsecond each, of a few or many.
_WAITING = 1 << 12
# Positions, at most, of which a report has the losses in order, where they are sequences.
IN_ORDER = 4096
# A prediction is one of the first so many.
_FIRST_FEW = 5


class Form(NamedTuple):
    """Properties that reports which merge have in common.

    ``tail`` is the labels' shape without its first axis, ``layout`` one of "image", "sequence" and
    "flat"; ``bins`` are those of the calibration, ``worst`` is how many positions are listed;
    ``temperature`` and ``softcap`` are those of the losses, ``dtype`` is the logits'.
    """

    tail: tuple[int, ...]
    classes: int
    layout: str
    bins: int
    worst: int
    temperature: float
    softcap: float | None
    dtype: str


class Report:
    """State of a report of labels of shape ``(length, *form.tail)``, or of a single label.

    ``positions`` is the number of labels; ``count`` that of those that count.
    """

    def __init__(self, form: Form, length: int | None) -> None:
        self.form = form
        self.length = length
        self._waiting: list[tuple[Array, Step]] = []
        self._waits = 0
        self.count = self.top5 = self.nan = 0
        self.low, self.high = math.inf, -math.inf
        self.histogram = histogram.empty()
        self.calibration = Calibration(form.bins)
        self.classes = Classes(form.classes)
        self.worst = Worst(form.worst)
        self.sample = Sample(form.classes, BY_NAME[form.dtype], form.softcap)
        self.sequences: Losses | None = None
        self.in_order: Array | None = None
        if form.layout == "sequence":
            self.sequences = Losses(math.prod(self.shape[:-1]))
            if self.positions <= IN_ORDER:
                self.in_order = np.zeros(self.positions)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the labels."""
        return () if self.length is None else (self.length, *self.form.tail)

    @property
    def positions(self) -> int:
        return math.prod(self.shape)

    def add(self, step: Step) -> None:
        """Add the positions of ``step``, each of which is added once, in any order of steps."""
        chosen = np.flatnonzero(step.counted)
        places = step.first + chosen
        if len(chosen) < len(step.counted):
            step = step.of(chosen)
        self.worst.add(step, places)
        self.sample.add(step)
        self._waiting.append((places, step.without_logits()))
        self._waits += len(chosen)
        if self._waits > _WAITING:
            self.settle()

    def settle(self) -> None:
        """Add up the positions that wait: before any other attribute is read."""
        if not self._waits:
            return
        places = np.concatenate([places for places, _ in self._waiting])
        step = joined([step for _, step in self._waiting])
        self._waiting, self._waits = [], 0
        self.count += len(places)
        self.top5 += int(np.count_nonzero((step.ranks >= 0) & (step.ranks < _FIRST_FEW)))
        losses = step.losses[~np.isnan(step.losses)]
        self.nan += len(places) - len(losses)
        if losses.size:
            self.low = min(self.low, float(losses.min()))
            self.high = max(self.high, float(losses.max()))
            histogram.add(self.histogram, losses)
        self.calibration.add(step)
        self.classes.add(step)
        if self.sequences is not None:
            self.sequences.add(places // self.shape[-1], step.losses, step.weights)
            if self.in_order is not None:
                self.in_order[places] = step.losses

    def merge(self, other: Report) -> None:
        """Add the positions of ``other`` after these, along the first axis of the labels.

        Raises ``InvalidInput`` where their forms differ.
        """
        self.settle()
        other.settle()
        if self.form != other.form:
            raise InvalidInput(_difference(self.form, other.form), field="reports")
        before = self.positions
        outer = math.prod(self.shape[:-1])
        self.length = sum(1 if part.length is None else part.length for part in (self, other))
        self.count += other.count
        self.top5 += other.top5
        self.nan += other.nan
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.histogram += other.histogram
        self.calibration.merge(other.calibration)
        self.classes.merge(other.classes)
        self.worst.merge(other.worst, before)
        self.sample.merge(other.sample)
        if self.sequences is not None and other.sequences is not None:
            # Labels of one dimension are a single sequence, which goes on.
            self.sequences.merge(other.sequences, outer if self.form.tail else 0)
        kept = [part for part in (self.in_order, other.in_order) if part is not None]
        whole = len(kept) == 2 and self.positions <= IN_ORDER
        self.in_order = np.concatenate(kept) if whole else None

    def to_bytes(self) -> bytes:
        """The state as an .npz file, which ``from_bytes`` reads; equal states are equal bytes."""
        self.settle()
        keys, numbers = self.classes.pairs()
        form = {"format": _FORMAT, "length": self.length, **self.form._asdict()}
        counts = [self.count, self.top5, self.nan]
        arrays: dict[str, Any] = {
            "form": np.frombuffer(json.dumps(form).encode(), np.uint8),
            "counts": np.array(counts, np.int64),
            "extremes": np.array([self.low, self.high]),
            "histogram": self.histogram,
            "calibration.counts": self.calibration.counts,
            "calibration.right": self.calibration.right,
            "right": self.classes.right,
            "predicted": self.classes.predicted,
            "matrix": np.empty((0, 0)) if self.classes.matrix is None else self.classes.matrix,
            "pairs": np.stack([keys, numbers]),
        }
        if self.in_order is not None:
            arrays["in_order"] = self.in_order
        for group, part in self._parts().items():
            arrays |= {f"{group}.{name}": array for name, array in part.items()}
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    def _sums(self) -> dict[str, ExactSums]:
        sums = {
            "confidences": self.calibration.confidences,
            "brier": self.calibration.brier,
            "losses": self.classes.sums.losses,
            "weights": self.classes.sums.weights,
        }
        if self.sequences is not None:
            sums["sequences.losses"] = self.sequences.losses
            sums["sequences.weights"] = self.sequences.weights
        return sums

    def _parts(self) -> dict[str, Mapping[str, Array]]:
        parts: dict[str, Mapping[str, Array]] = {
            name: sums.arrays() for name, sums in self._sums().items()
        }
        parts |= {"sample": self.sample.arrays(), "worst": self.worst.columns}
        parts["classes"] = {"counts": self.classes.sums.counts, "ones": self.classes.sums.ones}
        if self.sequences is not None:
            parts["sequences"] = {"counts": self.sequences.counts, "ones": self.sequences.ones}
        return parts

    @classmethod
    def from_bytes(cls, content: bytes) -> Report:
        """The report of which ``to_bytes`` made ``content``.

        For files of one's own: its sizes are not limited. Raises ``InvalidInput`` for other bytes.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                return cls._of(dict(file))
        except (ValueError, KeyError, TypeError, EOFError, IndexError, zipfile.BadZipFile) as error:
            raise InvalidInput(
                f"this is no state of a report that lossd wrote ({error})", field="reports"
            ) from None

    @classmethod
    def _of(cls, arrays: Mapping[str, Array]) -> Report:
        said = json.loads(arrays["form"].tobytes())
        if said.pop("format") != _FORMAT:
            raise ValueError("another version")
        length = said.pop("length")
        form = Form(**{**said, "tail": tuple(said["tail"])})
        report = cls(form, length)
        report.count, report.top5, report.nan = arrays["counts"].tolist()
        report.low, report.high = arrays["extremes"].tolist()
        report.histogram = arrays["histogram"]
        report.calibration.counts = arrays["calibration.counts"]
        report.calibration.right = arrays["calibration.right"]
        report.classes.right, report.classes.predicted = arrays["right"], arrays["predicted"]
        for name, losses in (("classes", report.classes.sums), ("sequences", report.sequences)):
            if losses is not None:
                losses.counts, losses.ones = arrays[f"{name}.counts"], arrays[f"{name}.ones"]
        if report.classes.matrix is not None:
            report.classes.matrix = arrays["matrix"]
        report.classes.load_pairs(*arrays["pairs"])
        report.in_order = arrays.get("in_order")
        for name, sums in report._sums().items():
            inside = {key.rpartition(".")[2]: arrays[key] for key in arrays if _is_of(key, name)}
            sums.__dict__.update(ExactSums.from_arrays(inside).__dict__)
        report.sample.load({key: arrays[f"sample.{key}"] for key in report.sample.arrays()})
        report.worst.columns = {key: arrays[f"worst.{key}"] for key in report.worst.columns}
        return report


def _is_of(key: str, group: str) -> bool:
    return key.rpartition(".")[0] == group


def _difference(one: Form, other: Form) -> str:
    name, mine, theirs = next(
        (name, mine, theirs)
        for name, mine, theirs in zip(Form._fields, one, other, strict=True)
        if mine != theirs
    )
    meaning = {"tail": "shape of the labels behind the first axis"}.get(name, name)
    return f"the reports differ in {meaning}, {mine} and {theirs}: only alike ones merge"
