"""A small loss computed again and again is what it was the first time, whatever it is given."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import InvalidInput, dtypes, plan_cache, steps
from tests import zoo
from tests.oracle import Array


def times(count: int, logits: Array, labels: Array, **options: Any) -> list[bytes]:
    return [kernels.cross_entropy(logits, labels, **options).tobytes() for _ in range(count)]


def planned() -> int:
    return sum(plan is not None for plan in plan_cache._KEPT.plans.values())


@pytest.fixture(autouse=True)
def nothing_planned() -> None:
    plan_cache._KEPT.clear()


@pytest.mark.parametrize("options", ["plain", "temperature", "softcap", "z_loss"])
@pytest.mark.parametrize("shape", [(4, 5), (129,), (3, 19, 7, 2), (40, 1)])
def test_same_bits(shape: tuple[int, ...], options: str, dtype: dtypes.DType) -> None:
    example = zoo.example(shape, min(1, len(shape) - 1), dtype, options)
    logits, labels, chosen = example.lying(np.asarray)
    for name in ("weight", "sample_weight"):
        chosen.pop(name, None)
    for reduction in ("mean", "sum"):
        assert len(set(times(3, logits, labels, **chosen, reduction=reduction))) == 1
    assert planned() == 2


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_steps_have_plans_too(reduction: str, dtype: dtypes.DType) -> None:
    example = zoo.example((4, 5), 1, dtype, "plain")
    logits, labels, options = example.lying(np.asarray)
    options = {**options, "reduction": reduction, "outputs": ["loss", "per_element"]}
    want = kernels.cross_entropy(logits, labels, **options)
    for _ in range(3):
        work = steps.cross_entropy(logits, labels, **options)
        got = work.run()
        assert list(got) == ["loss", "per_element"]
        assert [array.tobytes() for array in got.values()] == [
            array.tobytes() for array in want.values()
        ]
        held = {id(array): array.nbytes for array in got.values()}
        assert sum(held.values()) <= work.result_bytes + 8
    assert planned() == 1
    assert work.quick


def test_each_call_has_its_own_numbers() -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        logits = generator.standard_normal((4, 5), np.float32)
        labels = generator.integers(0, 5, 4)
        got = kernels.cross_entropy(logits, labels)
        want = kernels.cross_entropy(logits, labels, outputs=["loss", "rank"])["loss"]
        assert got == want
        assert got.dtype == want.dtype
        assert got.shape == want.shape
    assert planned() == 1


def test_labels_in_any_order() -> None:
    logits = np.random.default_rng(3).standard_normal((5, 6, 7), np.float32)
    labels = np.asfortranarray(np.random.default_rng(4).integers(0, 6, (5, 7)))
    for _ in range(3):
        got = kernels.cross_entropy(logits, labels)
        want = kernels.cross_entropy(logits, labels, outputs=["loss", "rank"])["loss"]
        assert got == want
        labels = (labels + 1) % 6
    assert planned() == 1


def test_results_are_not_overwritten() -> None:
    logits, labels = np.eye(4, 5, dtype=np.float32), np.zeros(4, np.int64)
    losses = [kernels.cross_entropy(logits * i, labels) for i in range(4)]
    assert [loss.tobytes() for loss in losses] == [
        kernels.cross_entropy(logits * i, labels, outputs=["loss", "rank"])["loss"].tobytes()
        for i in range(4)
    ]


def test_impossible_labels_are_found_and_forgotten() -> None:
    logits, labels = np.zeros((4, 5), np.float32), np.array([1, 2, 3, 4])
    want = times(3, logits, labels)
    with pytest.raises(InvalidInput, match=r"labels\[2\] is 9") as caught:
        kernels.cross_entropy(logits, np.array([1, 2, 9, 4]))
    assert caught.value.position == (2,)
    assert times(1, logits, labels) == want[:1]


def test_an_equal_option_of_another_type_is_checked_anew() -> None:
    logits, labels = np.zeros((4, 5), np.float32), np.zeros(4, np.int64)
    times(3, logits, labels, ignore_index=1, label_smoothing=1.0)
    wrong: Any = 1.0
    with pytest.raises(InvalidInput, match="must be an integer"):
        kernels.cross_entropy(logits, labels, ignore_index=wrong, label_smoothing=1.0)


@pytest.mark.parametrize("wrong", [{"temperature": [1.0]}, {"reduction": {}}, {"class_axis": "1"}])
def test_what_is_no_option_is_refused_each_time(wrong: dict[str, Any]) -> None:
    logits, labels = np.zeros((4, 5), np.float32), np.zeros(4, np.int64)
    for _ in range(3):
        with pytest.raises(InvalidInput):
            kernels.cross_entropy(logits, labels, **wrong)


def test_wrong_shapes_are_refused_each_time() -> None:
    for _ in range(3):
        with pytest.raises(InvalidInput, match="labels have shape"):
            kernels.cross_entropy(np.zeros((4, 5), np.float32), np.zeros(3, np.int64))


def test_plans_are_bounded() -> None:
    for rows in range(1, 3 * plan_cache.MOST):
        times(2, np.zeros((rows, 5), np.float32), np.zeros(rows, np.int64))
    assert 0 < len(plan_cache._KEPT.plans) <= plan_cache.MOST


def test_what_is_not_planned_is_computed() -> None:
    logits = np.zeros((4, 5), np.float32)
    assert len(set(times(3, logits, np.zeros(4, np.int64), weight=np.ones(5)))) == 1
    soft = np.full((4, 5), 0.2, np.float32)
    assert len(set(times(3, logits, soft))) == 1
    assert len(set(times(3, np.asfortranarray(logits), np.zeros(4, np.int64)))) == 1
    wide = np.zeros((2, plan_cache.LARGEST), np.float32)
    assert len(set(times(3, wide, np.zeros(2, np.int64)))) == 1
    assert planned() == 0


def test_threads_have_plans_of_their_own() -> None:
    labels = np.zeros(8, np.int64)
    losses: dict[int, set[bytes]] = {}

    def compute(number: int) -> None:
        logits = np.eye(8, 5, dtype=np.float32) * number
        losses[number] = set(times(500, logits, labels))

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set.union(*losses.values())) == 4
