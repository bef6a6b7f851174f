"""Pieces, streams and memory, on the simulator: ``test_simulated.py`` runs this file.

On a GPU ``hardware.py`` does.
"""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError

import kernels
from benchmarks.cuda import sanitizer, timeline
from kernels import devices, dtypes, warm
from kernels.cuda.device import failures, memory
from kernels.cuda.kinds import SIMULATED
from kernels.cuda.launch import divergence, loss, queue
from kernels.cuda.launch.warm import EAGER
from kernels.problem import check
from tests import zoo
from tests.oracle import Array

ALL = zoo.outputs()
SHAPES = [((37, 5), 1), ((7, 70), 1), ((5, 37), 0), ((3, 4, 3, 5), 1), ((2, 3, 4, 5), 2)]


@pytest.fixture(autouse=True)
def fresh_budget() -> Iterator[memory.Budget]:
    """A budget of its own for each test, of which nothing is leased at the end."""
    memory.set_budget(1 << 24)
    budget = memory.budget()
    yield budget
    budget.drop()
    assert budget.leased == 0


def answers(example: zoo.Example, outputs: list[str]) -> dict[str, bytes]:
    logits, labels, options = example
    got = kernels.cross_entropy(logits, labels, outputs=outputs, **options)
    return {name: array.tobytes() for name, array in got.items()}


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_pieces_have_the_bits_of_the_whole(
    shape: tuple[int, ...], axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any size, down to one position; in any layout."""
    for dtype in (dtypes.FLOAT32, dtypes.BFLOAT16):
        example = zoo.example(shape, axis, dtype, "all")
        whole = answers(example, ALL)
        row = shape[axis] * dtype.size
        for positions in (1, 3, 32):
            monkeypatch.setattr(loss, "STEP", positions * row)
            assert answers(example, ALL) == whole
        monkeypatch.undo()


@pytest.mark.parametrize("classes", [3, 19, 70])
@pytest.mark.parametrize("axis", [1, 0], ids=["rows", "planes"])
def test_a_position_knows_nothing_of_its_neighbours(
    axis: int, classes: int, dtype: dtypes.DType
) -> None:
    """Nor whether its own row lies on a multiple of 16 bytes."""
    rng = np.random.default_rng(classes)
    rows = rng.normal(0, 4, (11, classes))
    rows[1], rows[2, classes // 2], rows[3], rows[5] = np.nan, np.inf, -np.inf, 1e4 * rows[5]
    rows, labels = zoo.cast(rows, dtype), rng.integers(0, classes, 11)

    def one_by_one(order: Array) -> list[Array]:
        logits = rows[order] if axis else np.ascontiguousarray(rows[order].T)
        got = kernels.cross_entropy(
            logits, labels[order], class_axis=axis, reduction="sum", outputs=ALL, z_loss=0.1
        )
        turn = ("log_probs", "gradient") if axis == 0 else ()
        return [got[name].T if name in turn else got[name] for name in zoo.each_alone()]

    whole = one_by_one(np.arange(11))
    for order in (np.arange(11)[::-1], np.arange(4, 7), np.array([8, 2, 2, 0, 10])):
        for array, part in zip(whole, one_by_one(order), strict=True):
            assert part.tobytes() == array[order].tobytes()


@pytest.mark.parametrize("name", zoo.LAYOUTS)
def test_pieces_of_every_layout(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    example = zoo.example((3, 7, 5), 1, dtypes.FLOAT32, "all", soft=True).lying(zoo.LAYOUTS[name])
    outputs = zoo.outputs(soft=True)
    whole = answers(example, outputs)
    monkeypatch.setattr(loss, "STEP", 2 * 7 * 4)
    assert answers(example, outputs) == whole


def test_a_small_budget_makes_small_pieces(fresh_budget: memory.Budget) -> None:
    example = zoo.example((64, 9), 1, dtypes.FLOAT32, "all")
    whole = answers(example, ALL)
    fresh_budget.drop()
    fresh_budget.total = 15_000
    assert answers(example, ALL) == whole


def test_too_little_memory_is_said_and_nothing_kept(fresh_budget: memory.Budget) -> None:
    fresh_budget.total = 2_000
    with pytest.raises(kernels.DeviceOutOfMemory):
        kernels.cross_entropy(np.zeros((3, 200), np.float32), np.zeros(3, int))
    fresh_budget.total = 100
    with pytest.raises(kernels.DeviceOutOfMemory):
        kernels.cross_entropy(np.zeros((3, 5), np.float32), np.zeros(3, int))


@pytest.mark.parametrize("fails", range(1, 7))
def test_every_allocation_may_fail(
    fails: int, fresh_budget: memory.Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th, for every n: a clear error, nothing held, and the next call is right."""
    count = [0]
    pinned, on_device = memory._pinned, memory._on_device

    def failing(allocate: Any) -> Any:
        def one(size: int) -> Any:
            count[0] += 1
            if count[0] == fails:
                raise driver_error(2)
            return allocate(size)

        return one

    monkeypatch.setattr(memory, "_pinned", failing(pinned))
    monkeypatch.setattr(memory, "_on_device", failing(on_device))
    monkeypatch.setattr(loss, "STEP", 40)
    logits, labels = np.ones((8, 5), np.float32), np.zeros(8, np.int64)
    with pytest.raises(kernels.DeviceOutOfMemory):
        kernels.cross_entropy(logits, labels)
    fresh_budget.drop()
    assert fresh_budget.leased == 0
    assert float(kernels.cross_entropy(logits, labels)) == pytest.approx(np.log(5), rel=1e-6)


def test_the_first_impossible_label_of_any_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros(40, np.int64)
    labels[[11, 12, 33]] = 5, -1, 9
    for step in (20, 200, 10_000):
        monkeypatch.setattr(loss, "STEP", step)
        with pytest.raises(kernels.InvalidInput) as caught:
            kernels.cross_entropy(np.zeros((40, 5), np.float32), labels)
        assert caught.value.position == (11,)


def test_nothing_is_held_until_the_logits_are_there(fresh_budget: memory.Budget) -> None:
    """Logits may hold anything until they have arrived, and their sender may still go away."""
    logits = np.random.default_rng(0).normal(0, 3, (16, 6)).astype(np.float32)
    problem = check(logits.copy(), np.arange(16) % 6, device="cuda")
    arriving: Array = np.full_like(logits, np.nan)
    late = check(arriving, np.arange(16) % 6, device="cuda")
    want = kernels.devices.compute(problem, ("losses",))[1]["losses"]
    steps = loss.in_steps(late, ("losses",), step=4 * 6 * 4)
    assert next(steps) == logits.nbytes
    assert fresh_budget.free() == fresh_budget.total
    arriving[...] = logits
    later = []
    while True:
        try:
            later.append(next(steps))
        except StopIteration as stopped:
            got = stopped.value[1]["losses"]
            break
    assert later == [logits.nbytes] * 3
    assert got.tobytes() == want.tobytes()


def driver_error(code: int) -> CudaAPIError:
    """The driver's, or the simulator's with the number that the driver's has."""
    if not SIMULATED:
        return CudaAPIError(code, "a fault")
    error = CudaAPIError("a fault")
    error.code = code
    return error


@pytest.mark.parametrize(
    ("code", "kind"),
    [(2, kernels.DeviceOutOfMemory), (1, CudaAPIError)]
    + [(code, kernels.DeviceFailed) for code in failures.STICKY],
)
@pytest.mark.parametrize("piece", range(3))
def test_what_the_driver_says_is_said(
    code: int, kind: type[Exception], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any piece; nothing is held then, and a text says what it was."""
    launched: list[int] = []

    def launch(*arguments: Any) -> None:
        launched.append(1)
        if len(launched) > piece:
            raise driver_error(code)

    monkeypatch.setattr(loss, "launch", launch)
    monkeypatch.setattr(loss, "STEP", 2 * 5 * 4)
    with pytest.raises(kind) as caught:
        kernels.cross_entropy(np.zeros((6, 5), np.float32), np.zeros(6, int))
    assert memory.budget().free() == memory.budget().total
    if kind is kernels.DeviceOutOfMemory:
        assert memory.budget().leased == 0
    if kind is kernels.DeviceFailed:
        assert failures.STICKY[code] in str(caught.value)


def test_more_classes_than_a_grid_has_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "MOST_CLASSES", 50)
    assert kernels.cross_entropy(np.zeros((1, 50), np.float32), [0]) > 3
    with pytest.raises(kernels.InvalidInput, match="50 classes, not 51"):
        kernels.cross_entropy(np.zeros((1, 51), np.float32), [0])


def test_the_end_of_a_call_may_fail_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failure in the wait for kernels that still run, whatever ended the call."""

    def context() -> None:
        raise driver_error(700)

    problem = check(np.zeros((16, 6), np.float32), np.zeros(16, int), device="cuda")
    steps = loss.in_steps(problem, ("loss",), step=96)
    next(steps)
    next(steps)
    monkeypatch.setattr(cuda, "current_context", context)
    with pytest.raises(kernels.DeviceFailed):
        steps.close()
    assert memory.budget().free() == memory.budget().total


@pytest.mark.parametrize(("given", "processes", "total"), [(1 << 20, 1, 1 << 20), (0, 4, None)])
def test_prepared_means_compiled_and_checked_within_a_budget(
    given: int, processes: int, total: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = set()
    launch = loss.__dict__["launch"]

    def launched(kind: Any, rows: bool, segments: int, normalised: bool, *more: Any) -> None:
        shapes.add((kind.dtype.name, rows, segments > 1))
        launch(kind, rows, segments, normalised, *more)

    monkeypatch.setattr(loss, "launch", launched)
    devices.prepare(given, processes)
    assert memory.budget().total == (total or memory.share_of_free() // 4)
    for dtype in EAGER:
        assert {(dtype.name, True, False), (dtype.name, True, True)} <= shapes
        assert (dtype.name, False, False) in shapes


def test_a_gpu_that_is_wrong_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "_LOSS", 1.6)
    with pytest.raises(warm.SelfTestFailed):
        devices.prepare()


def test_a_call_that_is_dropped_holds_nothing(fresh_budget: memory.Budget) -> None:
    problem = check(np.zeros((16, 6), np.float32), np.zeros(16, int), device="cuda")
    steps = loss.in_steps(problem, ("loss",), step=96)
    next(steps)
    next(steps)
    assert fresh_budget.free() < fresh_budget.total
    steps.close()
    assert fresh_budget.free() == fresh_budget.total


def test_an_accumulator_has_the_bits_of_one_call() -> None:
    logits, labels, _ = zoo.example((101, 7), 1, dtypes.FLOAT32, "plain")
    want = kernels.cross_entropy(logits, labels)
    for step in (7, 32, 50):
        accumulator = kernels.LossAccumulator(device="cuda")
        for start in range(0, 101, step):
            part = slice(start, start + step)
            accumulator.update(logits[part], labels[part])
        assert accumulator.result().tobytes() == want.tobytes()


def test_the_sanitizer_is_given_every_kernel() -> None:
    assert sanitizer.cases() == sanitizer.KERNELS
    launching = {**vars(divergence), **vars(loss), **vars(queue)}
    made = {name for name in launching if re.search("_kernel$", name)}
    assert made == sanitizer.KERNELS


@pytest.mark.parametrize("outputs", [("loss",), ("loss", "gradient")], ids=str)
def test_a_time_line_has_every_copy_and_launch(
    outputs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "STEP", 2 * 5 * 4)
    with timeline.recorded() as spans:
        kernels.cross_entropy(np.zeros((6, 5), np.float32), np.zeros(6, int), outputs=outputs)
    assert [span.kind for span in spans].count("kernels") == 3
    assert {span.kind for span in spans} == {"to device", "kernels", "to host"}
    assert all(0 <= span.start <= span.stop for span in spans)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 200])
def test_block_sums_are_the_cpus(count: int) -> None:
    """Bit for bit: NLL losses are the same numbers there, and the order is that of ``reduce``."""
    rng = np.random.default_rng(count)
    log_probs = np.log(rng.dirichlet(np.ones(4), count)).astype(np.float32)
    labels, weight = rng.integers(0, 4, count), rng.random(4)
    want = kernels.nll_loss(log_probs, labels, weight=weight, device="cpu")
    assert kernels.nll_loss(log_probs, labels, weight=weight).tobytes() == want.tobytes()


def test_pinned_memory_is_used_again(fresh_budget: memory.Budget) -> None:
    logits, labels = np.zeros((50, 16), np.float32), np.zeros(50, np.int64)
    kernels.cross_entropy(logits, labels)
    leased = fresh_budget.leased
    tracemalloc.start()
    try:
        kernels.cross_entropy(logits, labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fresh_budget.leased == leased
    assert peak < 1 << 20
