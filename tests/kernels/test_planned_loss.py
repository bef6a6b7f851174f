"""Every output that a plan may have, and every tensor, is what it is without one, to the bit."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import OUTPUTS, InvalidInput, dtypes, plan_cache
from kernels.plan import TABLE, Kind
from tests import zoo
from tests.oracle import Array

UNPLANNED: Callable[..., Any] = inspect.unwrap(kernels.cross_entropy)
NAMES = [name for name in OUTPUTS if TABLE[name].kind is not Kind.CLASS]
NEEDED: dict[str | None, Any] = {"top_k": 2, "bytes": 77}
# Shape of the labels, classes, and options, tensors among them by their dtypes. ``chosen``: the
# same classes for all positions.
CASES: dict[str, tuple[tuple[int, ...], int, dict[str, Any]]] = {
    "shift": ((4, 6), 5, {"shift": 1, "class_axis": -1}),
    "mask": ((4, 6), 5, {"mask": np.bool_, "class_axis": -1}),
    "both": ((3, 5, 2), 7, {"shift": -2, "mask": np.int8, "labels": np.int32}),
    "one_row": ((1, 9), 300, {"shift": 3, "mask": np.int64, "labels": np.uint16}),
    "nothing_is_left": ((3, 4), 5, {"shift": 4, "mask": np.int16, "empty": "zero"}),
    "unsigned": ((4, 6), 5, {"shift": 1, "mask": np.uint32, "labels": np.uint8}),
    "ignored": ((4, 6), 5, {"mask": np.bool_, "labels": np.uint8, "ignore_index": 255}),
    "positions": ((33,), 5, {"mask": np.bool_}),
    "single": ((), 5, {"mask": np.bool_}),
    "segments": ((4, 6), 5, {"segments": np.int32, "shift": 1, "mask": np.bool_}),
    "segments_of_one_row": ((9,), 5, {"segments": np.uint8, "labels": np.int16}),
    "same_chosen": ((4, 6), 5, {"chosen": None, "shift": 1}),
    "sum": ((4, 6), 5, {"reduction": "sum", "mask": np.bool_, "z_loss": 0.1}),
    "none": ((4, 6), 5, {"reduction": "none", "shift": 1, "temperature": 2.0}),
    "smoothed": ((4, 6), 5, {"label_smoothing": 0.1, "shift": 1, "focal": 1.5}),
    "one_thread": ((16, 130), 20, {"shift": 1, "mask": np.bool_, "class_axis": -1}),
    "shared": ((9, 100), 100, {"shift": 1, "mask": np.bool_, "class_axis": -1}),
    "blocks": ((8, 250), 40, {"shift": 1, "mask": np.bool_, "class_axis": -1}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_planned() -> None:
    plan_cache._KEPT.clear()


def planned() -> int:
    return sum(plan is not None for plan in plan_cache._KEPT.plans.values())


def problem(
    case: str, dtype: dtypes.DType, seed: int, names: list[str]
) -> tuple[Array, Array, dict[str, Any]]:
    """Logits, labels and options of a case, other ones for each ``seed``."""
    shape, classes, options = CASES[case]
    rng = np.random.default_rng(seed)
    given = {**options, "outputs": names}
    axis = given.get("class_axis", min(1, len(shape)))
    logits = rng.normal(0, 3, np.insert(shape, axis % (len(shape) + 1), classes).astype(int))
    labels = rng.integers(0, classes, shape)
    labels = np.where(rng.random(shape) < 0.2, given.get("ignore_index", -100), labels)
    if "ignore_index" not in given and np.dtype(given.get("labels", np.int64)).kind == "u":
        labels = abs(labels) % classes  # of an unsigned type none is ignored
    tensors = {
        "mask": rng.random(shape) < 0.8,
        "segments": rng.integers(0, 4, shape),
    }
    for name in tensors.keys() & given.keys():
        given[name] = np.asarray(tensors[name]).astype(given[name])
    given |= {str(each): NEEDED[each] for name in names if (each := TABLE[name].requires) in NEEDED}
    if "chosen_log_probs" in names:
        of = () if "chosen" in given else shape
        given["chosen"] = rng.integers(0, classes, (*of, 3), np.int32)
    return zoo.cast(logits, dtype), labels.astype(given.pop("labels", np.int64)), given


def bits(answers: dict[str, Array]) -> dict[str, Any]:
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in answers.items()}


def hold(case: str, dtype: dtypes.DType, names: list[str]) -> None:
    """Compare results of planned calls, all of them computed before, with those without a plan."""
    UNPLANNED(*problem(case, dtype, 0, names)[:2], **problem(case, dtype, 0, names)[2])  # compiles
    given = [problem(case, dtype, seed, names) for seed in range(5)]
    got = [kernels.cross_entropy(logits, labels, **options) for logits, labels, options in given]
    assert planned() == 1
    for answers, (logits, labels, options) in zip(got, given, strict=True):
        want = UNPLANNED(logits, labels, **options)
        assert list(answers) == list(want) == names
        assert bits(answers) == bits(want)
        assert all(array.flags.writeable for array in answers.values())


@pytest.mark.parametrize("case", CASES)
def test_all_outputs(case: str, dtype: dtypes.DType) -> None:
    hold(case, dtype, zoo.compiled(NAMES, dtype))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "chosen_log_probs"])
@pytest.mark.parametrize("case", ["both", "none", "shared", "segments"])
def test_each_output_alone(case: str, name: str) -> None:
    hold(case, dtypes.FLOAT32, [name])


def error_of(function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, ...]:
    with pytest.raises(InvalidInput) as caught:
        function(*arguments, **options)
    return str(caught.value), caught.value.field, caught.value.position


@pytest.mark.parametrize("case", ["shift", "both", "segments", "same_chosen", "shared", "mask"])
def test_errors(case: str) -> None:
    """Each is that of a call without a plan, and the next call is as if there was none."""
    names = ["loss", "sequence_loss", "chosen_log_probs", "max_logit"]
    logits, labels, options = problem(case, dtypes.FLOAT32, 0, names)
    UNPLANNED(logits, labels, **options)
    want = bits(UNPLANNED(logits, labels, **options))
    place = tuple(size // 2 for size in labels.shape)
    wrong, negative = labels.copy(), labels.copy()
    wrong[place] = 500
    negative[place] = negative[-1, -1] = -1
    other: list[tuple[Any, Any, dict[str, Any]]] = [
        (logits, labels[:1], {}),
        (logits, labels.astype(np.float32), {}),
        (logits[:1], labels, {}),
        (labels, labels, {}),
        (None, labels, {}),
        (logits, labels, {"top_k": 0}),
        (logits, labels, {"outputs": ["loss", "top_classes"]}),
        (logits, labels, {"outputs": ["loss", "no such output"]}),
        (logits, labels, {"shift": 500}),
        (logits, labels, {"chosen": options["chosen"] + 500}),
        (None, labels, {"chosen": options["chosen"] + 500}),
        (logits, labels, {"mask": np.ones(3, np.bool_)}),
        (logits, labels, {"mask": np.ones(labels.shape)}),
        (logits, labels, {"segments": np.full(labels.shape, 7777)}),
        (
            logits,
            labels,
            {"segments": np.full(labels.shape, 7777), "chosen": options["chosen"] - 9},
        ),
    ]
    for bad in (wrong, negative):
        kept = {"mask": np.ones(labels.shape, options["mask"].dtype)} if "mask" in options else {}
        other.append((logits, bad, kept))
    if "mask" in options:
        nothing = np.zeros(labels.shape, options["mask"].dtype)
        other.append((logits, labels, {"mask": nothing, "empty": "error"}))
    for logits_, labels_, more in other:
        for _ in range(3):
            for _ in range(3):
                assert bits(kernels.cross_entropy(logits, labels, **options)) == want
            expected = error_of(UNPLANNED, logits_, labels_, **{**options, **more})
            assert (
                error_of(kernels.cross_entropy, logits_, labels_, **{**options, **more}) == expected
            )


class Marked(np.ndarray[Any, Any]):
    """A class of arrays of its own."""


def misaligned(array: Array) -> Array:
    copy = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.parametrize("lying", [
    np.asfortranarray, misaligned, lambda array: np.repeat(array, 2, 1)[:, ::2],
    lambda array: array.view(Marked), lambda array: array.astype(np.int16),
    lambda array: array.tolist(),
])  # fmt: skip
@pytest.mark.parametrize("name", ["labels", "mask", "segments", "chosen"])
def test_tensors_that_lie_otherwise(name: str, lying: Callable[[Array], Any]) -> None:
    names = ["loss", "rank", "sequence_loss", "sequence_greedy", "chosen_log_probs"]
    for seed in range(3):
        logits, labels, options = problem("segments", dtypes.FLOAT32, seed, names)
        options["mask"] = options["mask"].astype(np.int64)
        want = bits(UNPLANNED(logits, labels, **options))
        tensors = {"labels": labels, **options}
        tensors[name] = lying(tensors[name])
        for _ in range(3):
            assert bits(kernels.cross_entropy(logits, labels, **options)) == want
            assert bits(kernels.cross_entropy(logits, **tensors)) == want


def test_unsigned_labels_of_64_bits() -> None:
    """Those beyond the int64s are no labels, wherever they are moved to."""
    logits = np.random.default_rng(3).normal(0, 1, (2, 3, 5)).astype(np.float32)
    labels = np.array([[0, 1, 2], [3, 4, 0]], np.uint64)
    options: dict[str, Any] = {"shift": 1, "class_axis": -1, "outputs": ["loss", "sequence_count"]}
    for _ in range(3):
        got = kernels.cross_entropy(logits, labels, **options)
        assert bits(got) == bits(UNPLANNED(logits, labels, **options))
    labels[1, 2] = 2**64 - 100
    for _ in range(3):
        expected = error_of(UNPLANNED, logits, labels, **options)
        assert error_of(kernels.cross_entropy, logits, labels, **options) == expected


def test_tensors_come_and_go() -> None:
    """Calls with and without a tensor, and of other shapes, do not take each other's plans."""
    names = ["loss", "sequence_loss", "sequence_count"]
    logits, labels, options = problem("both", dtypes.FLOAT32, 0, names)
    mask = options.pop("mask")
    calls: list[tuple[Array, Array, dict[str, Any]]] = [
        (logits, labels, options),
        (logits, labels, {**options, "mask": mask}),
        (logits, labels, {**options, "mask": mask != 0}),
        (logits, labels, {**options, "mask": None}),
        (logits, labels, {**options, "segments": labels * 0}),
    ]
    want = [bits(UNPLANNED(*call[:2], **call[2])) for call in calls]
    for _ in range(4):
        for call, answers in zip(calls, want, strict=True):
            assert bits(kernels.cross_entropy(*call[:2], **call[2])) == answers


def test_outputs_of_any_kind() -> None:
    function: Any = kernels.cross_entropy
    logits, labels = np.eye(4, 5, dtype=np.float32), np.zeros(4, np.int64)
    for outputs in (["loss"], ("loss",), [], ["loss", "loss"], ["count", "loss"], iter(["loss"])):
        for _ in range(3):
            got = function(logits, labels, outputs=outputs)
            assert bits(got) == bits(UNPLANNED(logits, labels, outputs=list(got)))
    for wrong in ("loss", 5, [["loss"]]):
        for _ in range(3):
            with pytest.raises((InvalidInput, TypeError)) as caught:
                UNPLANNED(logits, labels, outputs=wrong)
            with pytest.raises(caught.type):
                function(logits, labels, outputs=wrong)


def test_threads_have_arrays_of_their_own() -> None:
    names = ["loss", "per_element", "sequence_loss", "sequence_count", "sequence_greedy", "rank"]
    given = [problem("both", dtypes.FLOAT32, seed, names) for seed in range(4)]
    want = [bits(UNPLANNED(*each[:2], **each[2])) for each in given]
    right: list[int] = []

    def compute(number: int) -> None:
        logits, labels, options = given[number]
        got = [bits(kernels.cross_entropy(logits, labels, **options)) for _ in range(200)]
        right.append(got.count(want[number]))

    threads = [threading.Thread(target=compute, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [200] * 4


def test_bytes_of_all_plans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_cache, "ALL_BYTES", 4000)
    for rows in range(1, 40):
        logits, labels = np.zeros((rows, 5), np.float32), np.zeros(rows, np.int64)
        for _ in range(3):
            kernels.cross_entropy(logits, labels, outputs=["loss", "sequence_count"])
    kept = [plan.bytes for plan in plan_cache._KEPT.plans.values() if plan is not None]
    assert 0 < sum(kept) <= 4000
