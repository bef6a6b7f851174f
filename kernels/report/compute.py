"""Reports of logits and labels: computed piece by piece, in one pass over the logits."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from kernels import mismatch
from kernels.answer import impossible_label
from kernels.cpu.launch.summary import summarised
from kernels.devices import compute
from kernels.errors import InvalidInput
from kernels.plan import finish
from kernels.problem import Problem, check
from kernels.report.found import NAMES, Rows, at_once, in_passes
from kernels.report.pieces import MOST, STEP, STEPS, Piece, pieces, window
from kernels.report.sample import rows_of
from kernels.report.state import Form, Report
from kernels.report.step import Step
from kernels.scalars import integer, named
from kernels.specialisations import AnySpecialisation, SummarySpecialisation, not_compiled
from kernels.steps import Footprint

Array = np.ndarray[Any, Any]

LAYOUTS = ("auto", "image", "sequence", "flat")
MOST_BINS, MOST_WORST = 1000, 1000
# Difference of a confidence of the kernels, whose sums are float32, from the exact one, at most;
# and elements of rows that are computed exactly at a time.
_INEXACT, _EXACTLY = 4e-6, 1 << 20
# Nats from a label up to the prediction from which on a loss that is float32 says too little of the
# confidence, which is their difference: half an ulp of 32 is 2e-6.
_FAR_ABOVE = 32.0
_POSITION_BYTES = 256


def begin(
    logits: Any,
    labels: Any,
    *,
    bins: int = 15,
    worst: int = 20,
    layout: str = "auto",
    **options: Any,
) -> tuple[Problem, Report]:
    """Check the arguments of a report, and begin one without positions.

    ``options`` are those of ``kernels.cross_entropy`` but for reduction; labels are class indices.
    ``bins`` is the number of calibration bins, ``worst`` how many positions are listed. ``layout``
    says what the labels' axes are: "image" for (N, H, W), "sequence" for sequences of the last
    axis, "flat" for neither; "auto": images for logits of four dimensions, sequences for those of
    three whose classes are last. Raises ``InvalidInput``.
    """
    problem = check(logits, labels, **options)
    if problem.soft is not None:
        shape = mismatch.without(problem.logits.shape, problem.axis)
        raise InvalidInput(
            f"a report needs labels that are class indices, of shape {shape}; these are class"
            " probabilities",
            field="labels",
        )
    for name, value, least, most in (("bins", bins, 1, MOST_BINS), ("worst", worst, 0, MOST_WORST)):
        if not least <= integer(name, value) <= most:
            raise InvalidInput(f"{name} is {value}, and must be {least} to {most}", field=name)
    form = Form(
        problem.shape[1:],
        problem.classes,
        _layout(named("layout", layout, LAYOUTS), problem),
        int(bins),
        int(worst),
        problem.temperature,
        problem.softcap,
        problem.dtype.name,
    )
    return problem, Report(form, problem.shape[0] if problem.shape else None)


def _layout(layout: str, problem: Problem) -> str:
    rank, shape = problem.logits.ndim, problem.shape
    if layout == "auto":
        last = problem.axis == rank - 1
        return "image" if rank == 4 else "sequence" if rank == 3 and last else "flat"
    if layout == "image" and len(shape) != 3:
        raise InvalidInput(
            f"layout is image, which needs labels of shape (N, H, W), not {shape}", field="layout"
        )
    if layout == "sequence" and not shape:
        raise InvalidInput("layout is sequence, and there is a single label", field="layout")
    return layout


def report_of(logits: Any, labels: Any, **options: Any) -> Report:
    """Report of ``logits`` and ``labels``, at once; see ``begin``. Raises ``InvalidInput``."""
    problem, report = begin(logits, labels, **options)
    finish(in_steps(problem, report))
    return report


def in_steps(
    problem: Problem, report: Report, maps: bool = False, step: int | None = None
) -> Generator[int, None, dict[str, Array]]:
    """Add all positions of ``problem`` to ``report``, and return its maps, if there are to be any.

    Before each step, of about ``step`` bytes of logits, yields how many bytes of them, from the
    first, have to be there. Maps are of the labels' shape: "loss_map" and "confidence_map",
    float32, "prediction_map" and "label_map", int32 (int64 if the ignored label needs that), and
    "counted_map", uint8: 1 where a position counts, 0 where it is ignored or its weight is 0.
    Raises ``InvalidInput`` for an impossible label.
    """
    arrays, step = _no_maps(problem) if maps else {}, step or STEP
    for piece in pieces(problem, _piece(problem, step)):
        found = yield from _computed(problem, piece, report.form.bins, step)
        report.add(found)
        if maps:
            place = slice(piece.first, piece.stop)
            with np.errstate(over="ignore"):
                arrays["loss_map"][place] = found.losses
            arrays["confidence_map"][place] = found.confidences
            arrays["prediction_map"][place] = found.predictions
            assert problem.labels is not None
            arrays["label_map"][place] = problem.labels[place]
            arrays["counted_map"][place] = found.counted
    return {name: array.reshape(problem.shape) for name, array in arrays.items()}


def _piece(problem: Problem, step: int) -> int:
    """Bytes of logits in a piece."""
    return step * STEPS if summarised(problem) else step


def uncompiled(problem: Problem) -> tuple[AnySpecialisation, ...]:
    """Kernels to compile before a report, beside those of the loss; see ``kernels.warm.job``."""
    wanted = (SummarySpecialisation(problem.dtype.name),)
    return not_compiled(*wanted) if summarised(problem) else ()


def _no_maps(problem: Problem) -> dict[str, Array]:
    wide = not -(2**31) <= problem.ignore_index < 2**31
    dtypes = {
        "loss_map": np.float32,
        "confidence_map": np.float32,
        "prediction_map": np.int32,
        "label_map": np.int64 if wide else np.int32,
        "counted_map": np.uint8,
    }
    return {name: np.empty(problem.positions, dtype) for name, dtype in dtypes.items()}


def footprint(problem: Problem, report: Report, maps: bool, step: int | None) -> Footprint:
    """Memory that ``in_steps`` takes, at most, and its window; see ``steps.Footprint``."""
    classes, positions = problem.classes, problem.positions
    state = classes * 300 + 3 * rows_of(classes) * classes * problem.logits.itemsize + (1 << 18)
    pairs = min(positions, classes * classes) * 48 if report.classes.matrix is None else 0
    sequences = 200 * len(report.sequences.counts) if report.sequences else 0
    piece = min(positions, MOST) * _POSITION_BYTES + _EXACTLY * 32
    arrays = positions * 21 if maps else 0
    reach = None if step is None else window(problem, _piece(problem, step))
    return Footprint(state + pairs + sequences + piece + arrays, reach)


def _computed(problem: Problem, piece: Piece, bins: int, step: int) -> Generator[int, None, Step]:
    """Compute the ``Step`` of ``piece``, about ``step`` bytes of logits at a time.

    Yields and raises as ``in_steps``.
    """
    place = slice(piece.first, piece.stop)
    assert problem.labels is not None
    given = problem.labels[place]
    ignored = np.asarray(given == problem.ignore_index)
    wrong = np.flatnonzero(~ignored & ((given < 0) | (given >= problem.classes)))
    if wrong.size:
        raise impossible_label(problem, piece.first + int(wrong[0]))
    # Ignored positions have the confidence of their prediction too: any label will do for it.
    labels = np.where(ignored, 0, given).astype(np.int64)
    samples = None if problem.sample_weight is None else problem.sample_weight[place]
    counted = ~ignored if samples is None else ~ignored & (samples != 0.0)
    own = replace(
        problem, logits=piece.logits, axis=piece.axis, labels=labels, sample_weight=samples,
        ignore_index=-1,
    )  # fmt: skip
    plain = own
    if not _is_plain(problem):
        plain = replace(own, weight=None, sample_weight=None, label_smoothing=0.0, z_loss=0.0)
    rows = Rows(problem, piece)
    quick = summarised(plain)
    if quick:
        found = yield from at_once(plain, rows, -(-piece.logits.nbytes // step))
    else:
        yield piece.reach
        found = in_passes(plain, rows)
    nll, predictions, squares = found.nll, found.predictions, found.squares
    losses, weights = nll, np.ones(len(nll))
    if plain is not own:
        _, as_asked = compute(own, NAMES)
        losses, weights = as_asked["losses"], as_asked["weights"]
    with np.errstate(invalid="ignore", over="ignore"):
        confidences = np.minimum(np.exp(found.above - nll), 1.0)
    unsure = np.full(len(nll), False) if quick else found.above > _FAR_ABOVE
    _make_exact(confidences, squares, unsure, rows, problem.temperature, bins)
    if not counted.all():
        losses, weights = np.where(counted, losses, 0.0), np.where(counted, weights, 0.0)
    return Step(
        piece.first, labels, counted, losses, weights, nll, squares, confidences, predictions,
        found.ranks, rows.raw, partial(_margins, rows, labels, predictions),
    )  # fmt: skip


def _is_plain(problem: Problem) -> bool:
    return (
        problem.weight is None
        and problem.sample_weight is None
        and problem.label_smoothing == 0.0
        and problem.z_loss == 0.0
    )


def _margins(rows: Rows, labels: Array, predictions: Array, positions: Array) -> Array:
    """The logit of each label minus the largest other, in units of the temperature."""
    labels, predictions = labels[positions], predictions[positions]
    own, other = rows.logits(positions, labels), rows.logits(positions, predictions)
    with np.errstate(invalid="ignore", over="ignore"):
        for i in np.flatnonzero(labels == predictions).tolist():
            others = np.delete(rows(positions[i : i + 1])[0], labels[i])
            other[i] = others.max(initial=-np.inf)
        margins: Array = (own - other) / rows.problem.temperature
    return margins


def _make_exact(
    confidences: Array, squares: Array, unsure: Array, rows: Rows, temperature: float, bins: int
) -> None:
    """Compute in float64 what rounding could move over a bin's edge, what is not finite, and what
    is ``unsure``.
    """
    with np.errstate(invalid="ignore"):
        nearest = np.rint(confidences * bins)
        near = np.abs(confidences - nearest / bins) <= _INEXACT
        near = (near & (nearest > 0.0) & (nearest < bins)) | unsure
    chosen = np.flatnonzero(near | ~np.isfinite(confidences) | ~np.isfinite(squares))
    some = max(1, _EXACTLY // rows.problem.classes)
    for first in range(0, len(chosen), some):
        part = chosen[first : first + some]
        with np.errstate(invalid="ignore", over="ignore"):
            powers = rows(part)
            powers /= temperature
            powers -= powers.max(1, keepdims=True)
            totals = np.exp(powers, out=powers).sum(1)
            confidences[part] = 1.0 / totals
            squares[part] = np.square(powers, out=powers).sum(1) / (totals * totals)
