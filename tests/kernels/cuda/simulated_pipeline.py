"""Pieces, streams and memory, on the simulator: ``test_simulated.py`` runs this file."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numba import cuda

import kernels
from benchmarks.cuda.resident import Resident
from kernels import dtypes
from kernels.cuda import memory, pipeline
from kernels.problem import check
from tests import zoo
from tests.oracle import Array

ALL = list(kernels.OUTPUTS)
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
            monkeypatch.setattr(pipeline, "STEP", positions * row)
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
        return [got[name].T if name in turn else got[name] for name in ALL[1:]]

    whole = one_by_one(np.arange(11))
    for order in (np.arange(11)[::-1], np.arange(4, 7), np.array([8, 2, 2, 0, 10])):
        for array, part in zip(whole, one_by_one(order), strict=True):
            assert part.tobytes() == array[order].tobytes()


@pytest.mark.parametrize("name", zoo.LAYOUTS)
def test_pieces_of_every_layout(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    example = zoo.example((3, 7, 5), 1, dtypes.FLOAT32, "all", soft=True).lying(zoo.LAYOUTS[name])
    outputs = [output for output in ALL if output != "rank"]
    whole = answers(example, outputs)
    monkeypatch.setattr(pipeline, "STEP", 2 * 7 * 4)
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
    from numba.cuda.cudadrv.driver import CudaAPIError

    count = [0]
    pinned, on_device = memory._pinned, memory._on_device

    def failing(allocate: Any) -> Any:
        def one(size: int) -> Any:
            count[0] += 1
            if count[0] == fails:
                error = CudaAPIError("out of memory")
                error.code = 2
                raise error
            return allocate(size)

        return one

    monkeypatch.setattr(memory, "_pinned", failing(pinned))
    monkeypatch.setattr(memory, "_on_device", failing(on_device))
    monkeypatch.setattr(pipeline, "STEP", 40)
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
        monkeypatch.setattr(pipeline, "STEP", step)
        with pytest.raises(kernels.InvalidInput) as caught:
            kernels.cross_entropy(np.zeros((40, 5), np.float32), labels)
        assert caught.value.position == (11,)


def test_steps_ask_for_no_more_than_they_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes behind a piece may still be anything while it is copied."""
    logits = np.random.default_rng(0).normal(0, 3, (16, 6)).astype(np.float32)
    problem = check(logits.copy(), np.arange(16) % 6, device="cuda")
    arriving: Array = np.full_like(logits, np.nan)
    late = check(arriving, np.arange(16) % 6, device="cuda")
    want = kernels.devices.compute(problem, ("losses",))[1]["losses"]
    steps = pipeline.in_steps(late, ("losses",), step=4 * 6 * 4)
    asked = []
    while True:
        try:
            reach = next(steps)
        except StopIteration as stopped:
            got = stopped.value[1]["losses"]
            break
        asked.append(reach)
        arriving.reshape(-1)[: reach // 4] = logits.reshape(-1)[: reach // 4]
    assert asked == [96, 192, 288, 384]
    assert got.tobytes() == want.tobytes()


def test_a_call_that_is_dropped_holds_nothing(fresh_budget: memory.Budget) -> None:
    problem = check(np.zeros((16, 6), np.float32), np.zeros(16, int), device="cuda")
    steps = pipeline.in_steps(problem, ("loss",), step=96)
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


@pytest.mark.parametrize("shape", [(9, 5), (3, 70), (2, 7, 3)], ids=str)
def test_what_lies_on_the_device_is_not_copied(shape: tuple[int, ...], dtype: dtypes.DType) -> None:
    """As ``benchmarks/cuda`` measures it: the same launches, and the same bits."""
    logits, _, _ = zoo.example(shape, 1, dtype, "plain")
    labels = np.random.default_rng(0).integers(0, shape[1], (shape[0], *shape[2:]))
    want = kernels.cross_entropy(logits, labels, outputs=["loss", "gradient"])
    there = cuda.to_device(logits.view(dtype.load).reshape(-1))
    resident = Resident(shape, dtype, there, cuda.to_device(labels.reshape(-1)), True)
    for _ in range(2):
        resident.queue(cuda.stream())
        assert resident.loss() == float(want["loss"])
        assert resident.gradient().tobytes() == want["gradient"].tobytes()


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
