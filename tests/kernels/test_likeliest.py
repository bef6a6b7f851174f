"""Outputs about the likeliest classes: values, the order of ties, edges, bits, and bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels import dtypes
from tests import oracle, zoo
from tests.oracle import Array

ONE = ("max_logit", "confidence", "margin")
SEVERAL = ("top_log_probs", "top_classes")
SHAPES = [((37, 10), 1), ((5, 300), 1), ((3, 9001), 1), ((129,), 0), ((2, 19, 3, 11), 1)]
SHAPES += [((300, 21), 0), ((40, 1), 1)]


@pytest.fixture(params=zoo.WITH_LIKELIEST, ids=lambda dtype: dtype.name)
def dtype(request: pytest.FixtureRequest) -> dtypes.DType:
    """Each type of logits of which the tests have these kernels."""
    row: dtypes.DType = request.param
    return row


def hold(example: zoo.Example, top_k: int) -> None:
    """All outputs, to the oracle; log-probabilities, to the bits of those of all classes."""
    logits, labels, options = example
    axis = options["class_axis"]
    names = (
        "log_probs",
        *SEVERAL,
        "chosen_log_probs",
        *ONE[: 3 if labels.dtype.kind == "i" else 2],
    )
    chosen = np.arange(logits.shape[axis])[::-3]
    got = kernels.cross_entropy(
        logits, labels, top_k=top_k, chosen=chosen, outputs=names, **options
    )
    scaling = {name: options[name] for name in ("temperature", "softcap") if name in options}
    indices = labels if "margin" in names else None
    want = oracle.likeliest(logits, indices, class_axis=axis, top_k=top_k, **scaling)
    np.testing.assert_array_equal(got["top_classes"], want.pop("top_classes"))
    for name in want.keys() & got.keys():
        oracle.assert_close(got[name], want[name], example.softened() * 2.0)
    log_probs = np.moveaxis(got["log_probs"], axis, -1)
    kept = np.take_along_axis(log_probs, got["top_classes"], -1)
    np.testing.assert_array_equal(got["top_log_probs"], kept)
    np.testing.assert_array_equal(got["chosen_log_probs"], log_probs[..., chosen])


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
@pytest.mark.parametrize("options", ["plain", "all"])
def test_values(options: str, soft: bool, dtype: dtypes.DType) -> None:
    for shape, axis in SHAPES:
        example = zoo.example(shape, axis, dtype, options, soft=soft)
        if dtype not in zoo.WITH_BOTH:
            example.options.pop("softcap", None)
        hold(example, min(5, shape[axis]))


@pytest.mark.parametrize("name", [name for name in zoo.ROWS if name != "around_3e38"])
def test_odd_rows(name: str, dtype: dtypes.DType) -> None:
    logits = zoo.cast(zoo.ROWS[name], dtype)
    labels = np.random.default_rng(6).integers(0, logits.shape[1], len(logits))
    labels[-1] = -100
    with np.errstate(invalid="ignore"):
        hold(zoo.Example(logits, labels, {"class_axis": 1}), min(7, logits.shape[1]))
        turned = np.array(logits.T, order="C")
        hold(zoo.Example(turned, labels, {"class_axis": 0}), min(7, logits.shape[1]))


@pytest.mark.parametrize("negative", [False, True], ids=["around 0", "below 0"])
@pytest.mark.parametrize("classes", [2, 33, 700, 5000])
def test_ties_come_in_the_order_of_classes(
    classes: int, negative: bool, dtype: dtypes.DType
) -> None:
    """Few distinct values, -0 and 0 among them, which are equal."""
    rng = np.random.default_rng(classes)
    values = [-3.0, -2.0, -1.0, -0.0, 0.0] if negative else [-1.0, -0.0, 0.0, 1.0, 2.0]
    logits = zoo.cast(rng.choice(values, (9, classes), p=[0.5, 0.3, 0.15, 0.03, 0.02]), dtype)
    labels = rng.integers(0, classes, 9)
    for top_k in {1, 2, min(classes, 40), min(classes, 128)}:
        hold(zoo.Example(logits, labels, {"class_axis": 1}), top_k)


@pytest.mark.parametrize("classes", [4097, 9001])
def test_rows_of_few_positive_logits(classes: int, dtype: dtypes.DType) -> None:
    """Maxima of 16-bit logits are -inf where nothing reaches 0, and others are kept beside them."""
    rng = np.random.default_rng(classes)
    rows = rng.normal(-2.0, 1.0, (40, classes)).astype(np.float32)
    rows[::2, -1] = 6.0  # the last group has no whole pair of registers
    labels = rng.integers(0, classes, 40)
    for top_k in (1, 20):
        hold(zoo.Example(zoo.cast(rows, dtype), labels, {"class_axis": 1}), top_k)


@pytest.mark.parametrize("tiny", [-1e-7, -1e-40])
def test_one_positive_logit_among_tiny_negative_ones(tiny: float, dtype: dtypes.DType) -> None:
    """Bits of tiny negative 16-bit floats, taken as keys, are those of NaN."""
    rows = np.full((3, 5000), tiny, np.float32)
    rows[:, 4000] = [5.0, 0.0, -0.0]
    hold(zoo.Example(zoo.cast(rows, dtype), np.array([4000, 4000, 7]), {"class_axis": 1}), 3)


@pytest.mark.parametrize("kind", ["equal", "ascending", "descending", "one high", "-inf but three"])
@pytest.mark.parametrize("classes", [128, 5000])
def test_rows_that_an_estimate_would_get_wrong(
    kind: str, classes: int, dtype: dtypes.DType
) -> None:
    row = {
        "equal": np.full(classes, 1.5),
        "ascending": np.arange(classes) / 64.0,
        "descending": -np.arange(classes) / 64.0,
        "one high": np.where(np.arange(classes) == classes // 2, 9.0, 0.0),
        "-inf but three": np.where(np.isin(np.arange(classes), [1, 5, classes - 1]), 2.0, -np.inf),
    }[kind]
    logits = zoo.cast(np.stack([row, np.roll(row, 17)]), dtype)
    with np.errstate(invalid="ignore"):
        hold(zoo.Example(logits, np.array([classes // 2, 3]), {"class_axis": 1}), 128)


NAN, INF = np.nan, np.inf
# Three logits; their largest, its probability, the margin of each class, and the classes in order.
EDGES: dict[str, tuple[list[float], float, float, list[float], list[int]]] = {
    "equal": ([1, 1, 1], 1, 1 / 3, [0, 0, 0], [0, 1, 2]),
    "NaN": ([1, NAN, 2], NAN, NAN, [NAN, NAN, NAN], [1, 2, 0]),
    "NaN behind +inf": ([INF, 0, NAN], NAN, NAN, [NAN, NAN, NAN], [2, 0, 1]),
    "+inf": ([0, INF, 1], INF, NAN, [-INF, INF, -INF], [1, 2, 0]),
    "two +inf": ([INF, 0, INF], INF, NAN, [NAN, -INF, NAN], [0, 2, 1]),
    "-inf": ([-INF, 0, -INF], 0, 1, [-INF, INF, -INF], [1, 0, 2]),
    "all -inf": ([-INF, -INF, -INF], -INF, NAN, [NAN, NAN, NAN], [0, 1, 2]),
    "3e38": ([3e38, -3e38, 3e38], 3e38, 0.5, [0, -INF, 0], [0, 2, 1]),
}


@pytest.mark.parametrize("axis", [1, 0], ids=["rows", "planes"])
@pytest.mark.parametrize("name", EDGES)
def test_edges(name: str, axis: int) -> None:
    row, largest, confidence, margins, order = EDGES[name]
    logits = np.repeat(np.array([row], np.float32), 3, axis=0)
    lying = logits if axis else np.array(logits.T, order="C")
    got = kernels.cross_entropy(
        lying, np.arange(3), class_axis=axis, top_k=3, outputs=(*ONE, *SEVERAL)
    )
    np.testing.assert_allclose(got["max_logit"], [largest] * 3)
    np.testing.assert_allclose(got["confidence"], [confidence] * 3)
    np.testing.assert_allclose(got["margin"], margins)
    assert got["top_classes"].tolist() == [order] * 3


def test_margins_of_one_class_and_of_ignored_labels() -> None:
    one = kernels.cross_entropy(
        np.array([[2.0], [-INF]], np.float32), [0, -100], outputs=["margin"]
    )
    np.testing.assert_array_equal(one["margin"], [INF, NAN])
    capped = kernels.cross_entropy(np.ones((1, 1), np.float32), [0], softcap=2, outputs=["margin"])
    assert capped["margin"] == INF


def test_outputs_agree_with_one_another(dtype: dtypes.DType) -> None:
    """``confidence`` is the softmax of ``max_logit``, and margins are gaps of log-probabilities."""
    example = zoo.example((6, 500), 1, dtype, "plain")
    logits, labels, options = example
    names = (*ONE, "log_sum_exp", "log_probs", "prediction", *SEVERAL)
    got = kernels.cross_entropy(logits, labels, top_k=2, outputs=names, **options)
    gap = got["max_logit"] - got["log_sum_exp"]
    np.testing.assert_allclose(got["confidence"], np.exp(gap), rtol=1e-5)
    np.testing.assert_array_equal(got["top_classes"][:, 0], got["prediction"])
    for i, y in enumerate(labels.tolist()):
        if y != -100:
            first, second = got["top_classes"][i]
            other = second if first == y else first
            want = got["log_probs"][i, y] - got["log_probs"][i, other]
            np.testing.assert_allclose(got["margin"][i], want, rtol=1e-4, atol=1e-5)


def test_chosen_classes_of_each_position() -> None:
    logits = np.random.default_rng(3).normal(0, 2, (2, 30, 4)).astype(np.float32)
    labels = np.zeros((2, 4), np.int64)
    chosen = np.random.default_rng(4).integers(0, 30, (2, 4, 200)).astype(np.uint8)
    got = kernels.cross_entropy(
        logits, labels, chosen=chosen, outputs=["log_probs", "chosen_log_probs"]
    )
    want = np.take_along_axis(np.moveaxis(got["log_probs"], 1, -1), chosen.astype(np.intp), -1)
    np.testing.assert_array_equal(got["chosen_log_probs"], want)


@settings(max_examples=60)
@given(data=st.data())
def test_any_shape_and_values(data: st.DataObject) -> None:
    """Against the oracle, with values that often tie, in rows and planes."""
    classes = data.draw(st.integers(1, 600))
    positions, kind = data.draw(st.integers(1, 5)), data.draw(st.sampled_from(zoo.WITH_LIKELIEST))
    seed, spread = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.sampled_from([0, 1, 9, 2000]))
    rng = np.random.default_rng(seed)
    values = rng.integers(-spread, spread + 1, (positions, classes)) / 64.0 - data.draw(
        st.sampled_from([0.0, 40.0])
    )
    labels: Array = rng.integers(0, classes, positions)
    top_k = data.draw(st.integers(1, min(classes, 128)))
    axis = data.draw(st.sampled_from([0, 1]))
    logits = zoo.cast(values if axis else np.array(values.T, order="C"), kind)
    hold(zoo.Example(logits, labels, {"class_axis": axis}), top_k)


def test_any_number_of_threads_gives_these_bits() -> None:
    import numba

    logits = np.random.default_rng(5).normal(0, 3, (3, 70000)).astype(np.float32)
    options: dict[str, Any] = {"top_k": 9, "outputs": ("loss", *ONE, *SEVERAL)}
    threads = numba.get_num_threads()
    got = []
    for count in (1, threads):
        numba.set_num_threads(count)
        got.append(kernels.cross_entropy(logits, [1, 2, 3], **options))
    numba.set_num_threads(threads)
    for name in options["outputs"]:
        np.testing.assert_array_equal(got[0][name], got[1][name])
    np.testing.assert_array_equal(got[0]["loss"], kernels.cross_entropy(logits, [1, 2, 3]))


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"top_k": 4, "outputs": ["top_classes"]}, "top_k", "from 1 to 3"),
    ({"top_k": 0, "outputs": ["top_classes"]}, "top_k", "from 1 to 3"),
    ({"top_k": True, "outputs": ["loss"]}, "", ""),
    ({"top_k": 1.5, "outputs": ["loss"]}, "top_k", "integer"),
    ({"outputs": ["top_log_probs"]}, "top_k", "needs top_k"),
    ({"outputs": ["chosen_log_probs"]}, "chosen", "needs chosen"),
    ({"chosen": [0, 3], "outputs": ["loss"]}, "chosen", r"chosen\[1\] is 3.*from 0 to 2"),
    ({"chosen": [0, -1], "outputs": ["loss"]}, "chosen", r"chosen\[1\] is -1"),
    ({"chosen": [[0], [1], [2]], "outputs": ["loss"]}, "chosen", r"\(K\).*\(2, K\)"),
    ({"chosen": [0.5], "outputs": ["loss"]}, "chosen", "must be integers"),
    ({"chosen": np.array([2**64 - 1], np.uint64), "outputs": ["loss"]}, "chosen", "184467"),
]


@pytest.mark.parametrize(("options", "field", "text"), BAD)
def test_bad_input_is_named(options: dict[str, Any], field: str, text: str) -> None:
    logits = np.zeros((2, 3), np.float32)
    if not field:  # Python's True is the integer 1
        assert kernels.cross_entropy(logits, [0, 1], **options)["loss"] > 0
        return
    with pytest.raises(kernels.InvalidInput, match=text) as error:
        kernels.cross_entropy(logits, [0, 1], **options)
    assert error.value.field == field


def test_margin_takes_no_class_probabilities() -> None:
    with pytest.raises(kernels.InvalidInput, match="margin"):
        kernels.cross_entropy(
            np.zeros((1, 2), np.float32), np.full((1, 2), 0.5, np.float32), outputs=["margin"]
        )


def test_more_than_128_classes_are_not_found() -> None:
    with pytest.raises(kernels.InvalidInput, match="from 1 to 128"):
        kernels.cross_entropy(np.zeros((1, 200), np.float32), [0], top_k=129)


@pytest.mark.parametrize("shape", [(0, 5), (0, 7, 3)])
def test_no_position(shape: tuple[int, ...]) -> None:
    labels = np.zeros((shape[0], *shape[2:]), np.int64)
    got = kernels.cross_entropy(
        np.zeros(shape, np.float32), labels, top_k=2, chosen=[1, 2, 3],
        outputs=(*ONE, *SEVERAL, "chosen_log_probs"),
    )  # fmt: skip
    assert got["max_logit"].shape == labels.shape
    assert got["top_classes"].shape == (*labels.shape, 2)
    assert got["chosen_log_probs"].shape == (*labels.shape, 3)
