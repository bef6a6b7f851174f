"""A loss in steps: the same bits, with what each step reads announced before it."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

import kernels
from kernels import InvalidInput, dtypes, plan_cache, steps
from kernels.cpu.launch import loss
from tests import zoo
from tests.oracle import Array

SHAPES = [((3000, 40), 1), ((900, 700), 1), ((3, 70001), 1), ((4, 19, 40, 30), 1), ((50, 3000), 0)]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STEP", 1 << 16)


def taken(work: steps.Work, logits: Array | None = None, whole: Array | None = None) -> Any:
    """The outputs and what the steps announced; ``logits`` is filled from ``whole`` meanwhile."""
    announced: list[int] = []
    while True:
        try:
            announced.append(next(work.steps))
        except StopIteration as stopped:
            return stopped.value, announced
        if logits is not None and whole is not None:
            there, wanted = logits.reshape(-1).view(np.uint8), whole.reshape(-1).view(np.uint8)
            there[: announced[-1]] = wanted[: announced[-1]]


def assert_same(got: dict[str, Array], want: dict[str, Array]) -> None:
    assert list(got) == list(want)
    for name, array in want.items():
        assert got[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_same_bits_while_the_logits_arrive(
    shape: tuple[int, ...], axis: int, reduction: str, dtype: dtypes.DType
) -> None:
    example = zoo.example(shape, axis, dtype, "plain")
    logits, labels, options = example.lying(np.asarray)
    options = {**options, "reduction": reduction, "outputs": example.outputs()}
    want = kernels.cross_entropy(logits, labels, **options)
    arriving = np.zeros(logits.shape, logits.dtype)
    got, announced = taken(steps.cross_entropy(arriving, labels, **options), arriving, logits)
    assert_same(got, want)
    assert announced == sorted(announced)
    assert announced[-1] <= logits.nbytes
    if axis == 1 and shape[0] > 3:
        assert len(announced) >= 3
        assert announced[0] < logits.nbytes


@pytest.mark.parametrize(
    ("shape", "axis"), [*SHAPES[:2], ((7, 19, 40, 30), 1), ((600, 50, 17), -1)]
)
@pytest.mark.parametrize("names", [["loss"], zoo.outputs()], ids=["loss", "all"])
def test_nothing_before_the_window_is_read_again(
    shape: tuple[int, ...], axis: int, names: list[str], dtype: dtypes.DType
) -> None:
    example = zoo.example(shape, axis, dtype, "plain")
    logits, labels, options = example.lying(np.asarray)
    options = {**options, "outputs": zoo.compiled(names, dtype)}
    want = kernels.cross_entropy(logits, labels, **options)
    passing = logits.copy()
    there, step = passing.reshape(-1).view(np.uint8), 1 << 16
    work = steps.cross_entropy(passing, labels, step=step, **options)
    assert work.window is not None
    image = logits.nbytes // shape[0] if len(shape) == 4 else 0
    assert work.window <= 2 * step + 2 * image
    announced = []
    while True:
        try:
            announced.append(next(work.steps))
        except StopIteration as stopped:
            assert_same(stopped.value, want)
            break
        there[: max(announced[-1] - work.window, 0)] = 255  # not a number, in any type
    assert len(announced) >= 3
    assert announced[-1] > work.window


@pytest.mark.parametrize("threads", [4, 16, 64])
def test_window_does_not_grow_with_more_than_four_threads(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = np.random.default_rng(5).standard_normal((1100, 9000), np.float32)
    labels = np.zeros(1100, np.int64)
    tile = 32 * logits[0].nbytes
    want = kernels.cross_entropy(logits, labels, outputs=["loss", "per_element"])
    monkeypatch.setattr(numba, "get_num_threads", lambda: threads)
    work = steps.cross_entropy(logits, labels, outputs=["loss", "per_element"], step=tile)
    assert work.window is not None
    assert work.window <= 5 * tile
    got, announced = taken(work)
    assert len(announced) >= 7
    assert_same(got, want)


@pytest.mark.parametrize("name", ["reversed", "fortran"])
def test_what_is_not_read_in_order_has_no_window(name: str) -> None:
    example = zoo.example((900, 700), 1, dtypes.FLOAT32, "plain")
    logits, labels, options = example.lying(zoo.LAYOUTS[name])
    work = steps.cross_entropy(logits, labels, outputs=["loss"], step=1 << 14, **options)
    assert work.window is None


def test_few_long_rows_have_no_window_and_what_names_no_step_has_none() -> None:
    labels = np.zeros(1, np.int64)
    long = steps.cross_entropy(
        np.zeros((1, 200_001), np.float32), labels, outputs=["loss"], step=1 << 14
    )
    assert numba.get_num_threads() == 1 or long.window is None
    rows = np.zeros((9000, 50), np.float32)
    labels = np.zeros(9000, np.int64)
    assert steps.cross_entropy(rows, labels, outputs=["loss"]).window is None
    for work in (
        steps.nll_loss(rows, labels, outputs=["loss"], step=1 << 14),
        steps.softmax(rows, step=1 << 14),
        steps.log_softmax(rows, step=1 << 14),
    ):
        assert work.window is not None
        assert work.window < rows.nbytes // 4


def test_nll_and_softmax_in_steps() -> None:
    example = zoo.example((900, 700), 1, dtypes.FLOAT32, "plain")
    logits, labels, _ = example.lying(np.asarray)
    got, announced = taken(steps.nll_loss(logits, labels, outputs=["loss", "per_element"]))
    assert_same(got, kernels.nll_loss(logits, labels, outputs=["loss", "per_element"]))
    assert len(announced) > 10
    for step, door, name in [
        (steps.softmax, kernels.softmax, "probs"),
        (steps.log_softmax, kernels.log_softmax, "log_probs"),
    ]:
        got, announced = taken(step(logits))
        assert_same(got, {name: door(logits)})
        assert len(announced) > 10


def test_an_awkward_layout_is_wanted_whole() -> None:
    example = zoo.example((900, 700), 1, dtypes.FLOAT32, "plain")
    logits, labels, options = example.lying(zoo.LAYOUTS["reversed"])
    got, announced = taken(steps.cross_entropy(logits, labels, outputs=["loss"], **options))
    assert announced[0] == logits.nbytes
    assert got["loss"] == kernels.cross_entropy(logits, labels, **options)


@pytest.mark.parametrize("names", [["loss"], ["per_element", "rank"], ["gradient"]])
def test_result_bytes_cover_what_is_returned(names: list[str]) -> None:
    logits, labels = np.zeros((640, 50), np.float32), np.zeros(640, np.int64)
    work = steps.cross_entropy(logits, labels, outputs=names)
    most = work.result_bytes
    held = sum(array.nbytes for array in work.run().values())
    assert held <= most <= held + 16 * 640


def test_the_first_impossible_label_ends_it() -> None:
    labels = np.zeros(3000, np.int64)
    labels[[1500, 2500]] = 40
    work = steps.cross_entropy(np.zeros((3000, 40), np.float32), labels, outputs=["loss"])
    with pytest.raises(InvalidInput) as caught:
        work.run()
    assert caught.value.position == (1500,)


def test_closing_lets_go_of_everything() -> None:
    work = steps.cross_entropy(
        np.zeros((3000, 40), np.float32), np.zeros(3000, np.int64), outputs=["loss"]
    )
    next(work.steps)
    work.steps.close()
    with pytest.raises(StopIteration):
        next(work.steps)


def test_only_small_work_is_quick() -> None:
    kernels.cross_entropy(np.zeros((4, 5), np.float32), np.zeros(4, np.int64))
    labels = np.zeros(4, np.int64)
    assert steps.cross_entropy(np.zeros((4, 5), np.float32), labels, outputs=["loss"]).quick
    rows = loss.SERIAL // 4
    wide = np.zeros((4, rows + 1), np.float32)
    assert not steps.cross_entropy(wide, labels, outputs=["loss"]).quick


def test_what_is_not_compiled_yet_is_not_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernels.cpu.launch.threads._COMPILED", {})
    plan_cache._KEPT.clear()
    labels = np.zeros(4, np.int64)
    assert not steps.cross_entropy(np.zeros((4, 5), np.float32), labels, outputs=["loss"]).quick
