"""Kernel calls for a checked divergence: pieces, threads, steps, and its arrays."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from kernels import layout
from kernels.cpu.arguments import Operands
from kernels.cpu.divergence.dense import Constants, Positions, Results, pair_kernel
from kernels.cpu.divergence.sparse import Sorted, Teacher, sparse_kernel
from kernels.cpu.launch.loss import SERIAL, threads_of
from kernels.cpu.launch.threads import compiled, run
from kernels.cpu.launch.views import CHUNK, no_view, row_view, rows_for, view_of
from kernels.divergence import Divergence
from kernels.divergence_formula import REVERSE
from kernels.formula import LOG2E
from kernels.plan import Computed, ImpossibleLabel, View
from kernels.problem import Array
from kernels.teacher import TAILS


def _scale(problem: Divergence, temperature: float) -> tuple[float, float]:
    """Factors of logits: to nats, and to exponents of 2."""
    unit = 1.0 / temperature
    return unit, float(problem.dtype.result.type(LOG2E * unit))


def _constants(problem: Divergence, upstream: float) -> Constants:
    student = _scale(problem, problem.temperature)
    teacher = _scale(problem, problem.target_temperature)
    p, q = (teacher, student) if _swaps(problem) else (student, teacher)
    return Constants(
        *p,
        *q,
        plain_scale=_scale(problem, 1.0)[1],
        mode=problem.mode,
        beta=problem.beta,
        tail=TAILS.index(problem.tail),
        factor=problem.factor,
        upstream=upstream * problem.factor * student[0],
        tolerance=problem.tolerance,
    )


def _in_place(problem: Divergence) -> tuple[View, View] | None:
    """Views of the logits and of dense targets, or None where kernels need copies of them."""
    views = [
        view_of(array, problem.axis)
        for array in (problem.logits, problem.targets)
        if array is not None
    ]
    if any(view is None or view.class_stride != 1 for view in views):
        return None
    nothing = no_view(problem.logits.dtype)
    logits, *targets = views
    assert logits is not None
    return logits, (targets or [nothing])[0] or nothing


def _pieces(problem: Divergence) -> Iterator[tuple[int, View, View]]:
    """Yield ``(first position, logits, targets)`` of pieces whose classes are contiguous."""
    if problem.logits.size == 0:
        return
    views = _in_place(problem)
    if views is not None:
        yield 0, *views
        return
    rows = max(1, CHUNK // problem.classes)
    targets = (
        None if problem.targets is None else layout.chunks(problem.targets, problem.axis, rows)
    )
    first, nothing = 0, no_view(problem.logits.dtype)
    for piece in layout.chunks(problem.logits, problem.axis, rows):
        yield first, row_view(piece), nothing if targets is None else row_view(next(targets))
        first += len(piece)


def _launches(problem: Divergence, view: View, step: int | None) -> tuple[int, int]:
    """``(threads, launches)`` for a piece, the latter of about ``step`` bytes of logits."""
    threads = threads_of(problem.elements)
    workers = min(threads, view.positions)
    launches = 1 if step is None else -(-problem.elements * problem.logits.itemsize // step)
    return workers, max(1, min(launches, view.positions // workers))


def _in_order(problem: Divergence) -> bool:
    logits = problem.logits
    return logits.size > 0 and logits.flags.c_contiguous and _in_place(problem) is not None


def in_steps(
    problem: Divergence, wanted: tuple[str, ...], upstream: float = 1.0, step: int | None = None
) -> Generator[int, None, Computed]:
    """Compute the losses, float64 and one a position, and the arrays of ``wanted``.

    Those are "same_top", and float64 "label_log_probs" and "target_label_log_probs", one a
    position; and "gradient", of the logits' shape. Yields as ``launch.loss.in_steps`` does. Raises
    ``ImpossibleLabel`` for a target that is refused.
    """
    positions = problem.positions
    losses = np.empty(positions)
    arrays: dict[str, Array] = {
        name: np.empty(positions, np.int64 if name == "same_top" else np.float64)
        for name in ("same_top", "label_log_probs", "target_label_log_probs")
        if name in wanted
    }
    gradient = np.empty((0, 1), problem.dtype.result)
    if "gradient" in wanted:
        gradient = rows_for(problem, "gradient")
    constants = _constants(problem, upstream)
    in_order = step is not None and _in_order(problem)
    kernel = _kernel(problem)
    if not in_order:
        yield problem.logits.nbytes
    for first, logits, targets in _pieces(problem):
        stop = first + logits.positions
        workers, launches = _launches(problem, logits, step)
        shares = workers * launches
        results = _results(losses, arrays, first, stop, shares)
        p, q = (targets, logits) if _swaps(problem) else (logits, targets)
        contents: tuple[Any, ...] = (
            0,
            p,
            q,
            _positions(problem, first, stop),
            constants,
            results,
            _teacher(problem, first, stop),
            _rows(gradient, first, logits.positions),
            _scratch(problem, workers),
        )
        operands = Operands(*contents)  # of other types than a loss's: see ``divergence.dense``
        key = _key(problem)
        for launch in range(launches):
            if launches > 1 or in_order or first:
                yield _reach(logits, launch + 1, launches) if in_order else problem.logits.nbytes
            run(kernel, key, workers, operands, first=launch * workers, shares=shares)
            wrong = min(results.bad.tolist())
            if wrong < logits.positions:
                raise ImpossibleLabel(first + wrong)
    if "gradient" in wanted:
        shape = (*problem.shape, problem.classes)
        arrays["gradient"] = np.moveaxis(gradient.reshape(shape), -1, problem.axis)
    return losses, arrays


def _swaps(problem: Divergence) -> bool:
    """Return True if the targets are p: those of KL(p || q), but for a reverse divergence."""
    return problem.top_classes is None and problem.mode != REVERSE


def _kernel(problem: Divergence) -> Any:
    return pair_kernel if problem.top_classes is None else sparse_kernel


def _key(problem: Divergence) -> tuple[Any, ...]:
    """Key of a kernel's code: the type of its operands follows from it."""
    targets = problem.logits if problem.targets is None else problem.targets
    pair = (targets.dtype, problem.logits.dtype)
    return pair if _swaps(problem) else pair[::-1]


def _results(
    losses: Array, arrays: dict[str, Array], first: int, stop: int, shares: int
) -> Results:
    def part(name: str, dtype: Any) -> Array:
        return arrays[name][first:stop] if name in arrays else np.empty(0, dtype)

    return Results(
        np.full(shares, stop - first),
        losses[first:stop],
        part("target_label_log_probs", np.float64),
        part("label_log_probs", np.float64),
        part("same_top", np.int64),
    )


def _positions(problem: Divergence, first: int, stop: int) -> Positions:
    labels = np.empty(0, np.int64) if problem.labels is None else problem.labels[first:stop]
    return Positions(labels, problem.kept[first:stop], problem.weight[first:stop])


def _teacher(problem: Divergence, first: int, stop: int) -> Teacher:
    if problem.top_classes is None or problem.top_log_probs is None:
        return Teacher(np.empty(0, np.int64), np.empty(0), 0)
    classes = layout.readable(problem.top_classes[first:stop].reshape(-1))
    log_probs = layout.readable(problem.top_log_probs[first:stop].reshape(-1))
    return Teacher(classes, log_probs, problem.top_classes.shape[1])


def _rows(gradient: Array, first: int, count: int) -> View:
    return row_view(gradient[first : first + count] if len(gradient) else gradient)


def _scratch(problem: Divergence, workers: int) -> Sorted:
    top = 0 if problem.top_classes is None else problem.top_classes.shape[1]
    shape = workers, top + 1
    return Sorted(np.empty(shape, np.int64), np.empty(shape), np.empty(shape))


def _reach(logits: View, done: int, launches: int) -> int:
    """Bytes of contiguous ``logits`` that the first ``done`` of ``launches`` read."""
    return logits.positions * done // launches * logits.classes * logits.data.itemsize


def window(problem: Divergence, step: int) -> int | None:
    """Bytes of logits that a step still reads, as ``launch.loss.window``; None: all of them."""
    if not _in_order(problem):
        return None
    views = _in_place(problem)
    assert views is not None
    launches = _launches(problem, views[0], step)[1]
    return (problem.positions // launches + 1) * problem.classes * problem.logits.itemsize


def result_bytes(problem: Divergence, wanted: tuple[str, ...]) -> int:
    """Bytes of the arrays that ``in_steps`` returns, of those made of them, and of the problem's
    own: labels, what is kept, and weights.
    """
    whole = problem.logits.size * problem.dtype.result.itemsize * ("gradient" in wanted)
    return 8 * problem.positions * (2 * len(wanted) + 8) + whole


def quick(problem: Divergence) -> bool:
    """Return True if it takes well below a millisecond on this thread, all compiled."""
    return problem.elements <= SERIAL // 2 and compiled(_kernel(problem), _key(problem))
