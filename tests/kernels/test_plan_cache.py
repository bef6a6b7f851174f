"""A small loss computed again and again is what it was the first time, whatever it is given."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import numba
import numpy as np
import pytest

import kernels
from kernels import InvalidInput, dtypes, plan_cache, planned_loss, steps
from kernels.cpu.launch import objects, threads
from kernels.cpu.launch import planned as planned_launch
from kernels.cpu.launch.loss import SERIAL
from kernels.cpu.sums.rows import SEGMENT
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
        want = kernels.cross_entropy(logits, labels, outputs=["loss", "log_probs"])["loss"]
        assert got == want
        assert got.dtype == want.dtype
        assert got.shape == want.shape
    assert planned() == 1


def test_labels_in_any_order() -> None:
    logits = np.random.default_rng(3).standard_normal((5, 6, 7), np.float32)
    labels = np.asfortranarray(np.random.default_rng(4).integers(0, 6, (5, 7)))
    for _ in range(3):
        got = kernels.cross_entropy(logits, labels)
        want = kernels.cross_entropy(logits, labels, outputs=["loss", "log_probs"])["loss"]
        assert got == want
        labels = (labels + 1) % 6
    assert planned() == 1


def test_results_are_not_overwritten() -> None:
    logits, labels = np.eye(4, 5, dtype=np.float32), np.zeros(4, np.int64)
    losses = [kernels.cross_entropy(logits * i, labels) for i in range(4)]
    assert [loss.tobytes() for loss in losses] == [
        kernels.cross_entropy(logits * i, labels, outputs=["loss", "log_probs"])["loss"].tobytes()
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
    assert planned() == 0


def test_too_many_logits_are_not_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_cache, "LARGEST", 19)
    logits = np.zeros((4, 5), np.float32)
    assert len(set(times(3, logits, np.zeros(4, np.int64)))) == 1
    assert planned() == 0


def test_what_cannot_be_planned_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads share the segments of a long row, unless there is one thread."""
    tried = []

    def plan(*given: Any) -> Any:
        tried.append(planned_loss.PlannedLoss(*given))
        return tried[-1]

    logits, labels = np.zeros((1, SEGMENT + 1), np.float32), np.zeros(1, np.int64)
    kernels.cross_entropy(logits, labels, outputs=["loss", "log_probs"])  # compiles
    monkeypatch.setattr(plan_cache, "PlannedLoss", plan)
    assert len(set(times(5, logits, labels))) == 1
    assert len(tried) == 1


def test_plans_are_for_a_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    many, used = numba.get_num_threads(), []
    logits, labels = np.eye(2 * SERIAL // 8, 8, dtype=np.float32), np.arange(2 * SERIAL // 8) % 8

    def run_many(code: int, workers: int, *rest: int) -> None:
        used.append(workers)
        threads.run_many(code, workers, *rest)

    monkeypatch.setattr(planned_launch, "run_many", run_many)
    try:
        found = []
        for count in {1, many}:
            numba.set_num_threads(count)
            found += times(4, logits, labels)
            assert set(used) <= {count} - {1}
            used.clear()
    finally:
        numba.set_num_threads(many)
    assert len(set(found)) == 1
    assert planned() == len({1, many})


def test_a_million_rows_are_planned_unless_much_is_kept_of_each() -> None:
    logits, labels = np.zeros((1_000_000, 3), np.float16), np.zeros(1_000_000, np.int8)
    assert len(set(times(3, logits, labels))) == 1
    assert planned() == 1
    heavy: list[dict[str, Any]] = [{name: labels} for name in ("mask", "segments", "chosen")]
    for options in [*heavy, {"shift": 0}, {"reduction": "none"}]:
        kept = planned_loss.bytes_of(labels, ("loss",), options)
        assert kept > plan_cache.MOST_BYTES > planned_loss.bytes_of(labels, ("loss",), {})
    for _ in range(3):
        kernels.cross_entropy(logits, labels, outputs=["loss", "count"])
    assert planned() == 1


def test_larger_logits_that_lie_otherwise_are_not_copied() -> None:
    logits = np.random.default_rng(3).standard_normal((32, 200), np.float32)
    labels = np.arange(32)
    want = times(3, logits, labels)
    assert planned() == 1
    assert times(2, misaligned(logits), labels) == want[:2]
    assert times(2, np.asfortranarray(logits), labels) == want[:2]
    assert times(1, logits, labels[::-1].copy()[::-1]) == want[:1]


def test_threads_have_plans_of_their_own() -> None:
    labels = np.zeros(8, np.int64)
    losses: dict[int, set[bytes]] = {}

    def compute(number: int) -> None:
        logits = np.eye(8, 5, dtype=np.float32) * number
        losses[number] = set(times(500, logits, labels))

    callers = [threading.Thread(target=compute, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(set.union(*losses.values())) == 4


class Marked(np.ndarray[Any, Any]):
    """A class of arrays of its own."""


def misaligned(array: Array) -> Array:
    bytes_of = np.zeros(array.nbytes + 1, np.uint8)[1:]
    copy = bytes_of.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def test_arrays_that_are_not_as_planned() -> None:
    """Each is computed as it is, though a plan for a like array is at hand."""
    rng = np.random.default_rng(3)
    logits, labels = rng.standard_normal((4, 5), np.float32), rng.integers(0, 5, 4)
    swapped = logits.dtype.newbyteorder().newbyteorder()  # an equal dtype, another object
    for other, others in [
        (logits.view(Marked), labels),
        (logits, labels.view(Marked)),
        (logits.tolist(), labels),
        (logits, labels.tolist()),
        (np.asfortranarray(logits), labels),
        (np.repeat(logits, 2, 1)[:, ::2], labels),
        (misaligned(logits), labels),
        (logits, misaligned(labels)),
        (logits, np.repeat(labels, 2)[::2]),
        (logits.astype(np.float64), labels),
        (logits.view(swapped), labels),
        (logits, labels.astype(np.int32)),
        (logits[:3], labels[:3]),
        (logits.reshape(4, 5, 1), labels.reshape(4, 1)),
        (logits[:1], labels[:1]),
        (logits[0], labels[0]),
        (logits[0], int(labels[0])),
    ]:
        want = kernels.cross_entropy(other, others, outputs=["loss"])["loss"]
        for _ in range(3):
            times(3, logits, labels)
            assert kernels.cross_entropy(other, others).tobytes() == want.tobytes()
    nothing: Any = None
    for wrong, wrongs in [
        (nothing, labels), (logits, nothing), (logits, logits), (labels, logits),
        (np.zeros((4, 0), np.float32), labels), (logits.astype(">f4"), labels),
    ]:  # fmt: skip
        for _ in range(3):
            times(1, logits, labels)
            with pytest.raises(InvalidInput):
                kernels.cross_entropy(wrong, wrongs)


def test_logits_at_any_address_have_plans(dtype: dtypes.DType) -> None:
    logits, labels, options = zoo.example((4, 5), 1, dtype, "plain").lying(np.asarray)
    want = times(1, logits, labels, **options)
    got = [
        kernels.cross_entropy(misaligned(logits), misaligned(labels), **options).tobytes()
        for _ in range(3)
    ]
    assert got == want * 3
    assert planned() == 1
    large = np.zeros((2, planned_loss.SMALL), np.float32)
    assert len(set(times(3, misaligned(large), np.zeros(2, np.int64)))) == 1
    assert planned() == 1


def test_means_over_nothing() -> None:
    logits, labels = np.zeros((4, 5), np.float32), np.full(4, -100)
    for _ in range(4):
        assert np.isnan(kernels.cross_entropy(logits, labels))
        assert kernels.cross_entropy(logits, labels, empty="zero") == 0
        assert kernels.cross_entropy(logits, labels, reduction="sum") == 0
        with pytest.raises(InvalidInput, match="mean is over nothing"):
            kernels.cross_entropy(logits, labels, empty="error")
    assert planned() == 4


@pytest.mark.parametrize("shape", [(900, 100), (2000, 40)], ids=["shared", "blocks"])
def test_many_threads_give_the_same_bits(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    logits, labels = rng.standard_normal(shape, np.float32), rng.integers(0, shape[1], shape[0])
    want = kernels.cross_entropy(logits, labels, outputs=["loss", "log_probs"])["loss"]
    assert set(times(4, logits, labels)) == {want.tobytes()}
    wrong = labels.copy()
    wrong[[7, -1]] = shape[1]
    with pytest.raises(InvalidInput, match=r"labels\[7\] is"):
        kernels.cross_entropy(logits, wrong)
    assert times(1, logits, labels) == [want.tobytes()]
    assert planned() == 1


def test_options_in_any_order_and_left_out() -> None:
    logits, labels = np.eye(4, 5, dtype=np.float32), np.zeros(4, np.int64)
    default, total = times(1, logits, labels), times(1, logits, labels, reduction="sum")
    for _ in range(3):
        assert times(1, logits, labels, weight=None, shift=0, device="cpu") == default
        assert times(1, logits, labels, reduction="sum", ignore_index=-1) == total
        assert times(1, logits, labels, ignore_index=-1, reduction="sum") == total
        assert times(1, logits=logits, labels=labels) == default
    weighed = times(1, logits, labels, weight=(2.0, 1.0, 1.0, 1.0, 1.0), reduction="sum")
    assert weighed != total
    assert (
        times(3, logits, labels, weight=(2.0, 1.0, 1.0, 1.0, 1.0), reduction="sum") == weighed * 3
    )


def test_calls_that_are_none() -> None:
    function: Any = kernels.cross_entropy
    logits, labels = np.zeros((4, 5), np.float32), np.zeros(4, np.int64)
    for _ in range(3):
        function(logits, labels)
        with pytest.raises(TypeError, match=r"cross_entropy\(\).*'smoothing'"):
            function(logits, labels, smoothing=0.1)
        with pytest.raises(TypeError, match=r"cross_entropy\(\).*positional"):
            function(logits, labels, None)
        with pytest.raises(TypeError, match=r"cross_entropy\(\).*'labels'"):
            function(logits)
    assert inspect.signature(function).parameters["reduction"].default == "mean"


def test_fields_of_arrays_are_known() -> None:
    """Else nothing is planned: this NumPy or Python lays its objects out in another way."""
    assert objects.KNOWN_FIELDS
