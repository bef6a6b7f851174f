"""Reports: their numbers by an oracle in plain NumPy, and the same bits however they are split."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels import InvalidInput, dtypes
from kernels.cpu.launch.summary import summarised
from kernels.cpu.plain.scratch import MOST_IN_ROWS
from kernels.plan import finish
from kernels.problem import check
from kernels.report import Report, begin, compute, in_steps, numbers, report_of
from kernels.report.classes import MATRIX
from kernels.report.pieces import pieces
from kernels.tensors import widened
from tests import zoo

Array = np.ndarray[Any, Any]


def softmax(logits: Array, temperature: float = 1.0) -> Array:
    """Of float64 logits, the classes last."""
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(-1, keepdims=True))
    result: Array = powers / powers.sum(-1, keepdims=True)
    return result


def oracle(
    logits: Array,
    labels: Array,
    *,
    bins: int,
    ignore_index: int = -100,
    weight: Array | None = None,
    sample_weight: Array | None = None,
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
) -> dict[str, Any]:
    """A report of float64 logits, the classes last, and labels of any shape."""
    classes = logits.shape[-1]
    rows, flat = logits.reshape(-1, classes), labels.reshape(-1)
    samples = np.ones(flat.size) if sample_weight is None else sample_weight.reshape(-1)
    counted = (flat != ignore_index) & (samples != 0)
    places = np.flatnonzero(counted)
    rows, flat, samples = rows[counted], flat[counted], samples[counted]
    each = np.ones(classes) if weight is None else weight
    probs = softmax(rows, temperature)
    logs = np.log(probs)
    own = logs[np.arange(flat.size), flat]
    hard = -(1 - label_smoothing) * each[flat] * own
    smooth = -label_smoothing / classes * (each * logs).sum(1)
    losses, weights = samples * (hard + smooth), samples * each[flat]
    predicted = rows.argmax(1)
    confidence = probs.max(1)
    right = predicted == flat
    before = (rows > rows[np.arange(flat.size), flat][:, None]).sum(1)
    for i, y in enumerate(flat):
        before[i] += (rows[i, :y] == rows[i, y]).sum()
    which = np.minimum(
        (np.searchsorted(np.arange(bins + 1) / bins, confidence, "right") - 1), bins - 1
    )
    reliability = [(which == i) for i in range(bins)]
    gaps = [
        (mine.sum(), abs(right[mine].mean() - confidence[mine].mean()))
        for mine in reliability
        if mine.any()
    ]
    hot = np.eye(classes)[flat]
    others = rows.copy()
    others[np.arange(flat.size), flat] = -np.inf
    return {
        "count": flat.size,
        "loss_sum": losses.sum(),
        "weight_sum": weights.sum(),
        "correct": int(right.sum()),
        "top5_correct": int((before < 5).sum()),
        "brier": ((probs - hot) ** 2).sum(1).mean() if flat.size else math.nan,
        "bin_counts": [int(mine.sum()) for mine in reliability],
        "bin_correct": [int(right[mine].sum()) for mine in reliability],
        "ece": sum(n * gap for n, gap in gaps) / flat.size if flat.size else math.nan,
        "mce": max((gap for _, gap in gaps), default=math.nan),
        "class_counts": np.bincount(flat, minlength=classes).tolist(),
        "class_losses": [losses[flat == c].sum() for c in range(classes)],
        "class_right": np.bincount(flat[right], minlength=classes).tolist(),
        "predicted": np.bincount(predicted, minlength=classes).tolist(),
        "pairs": list(zip(flat.tolist(), predicted.tolist(), strict=True)),
        "losses": losses,
        "places": places,
        "confidence": confidence,
        "margin": (rows[np.arange(flat.size), flat] - others.max(1)) / temperature
        if classes > 1
        else np.full(flat.size, np.inf),
    }


def agrees(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare counts exactly, and sums within float32 rounding."""
    for name in ("count", "correct", "top5_correct"):
        assert found[name] == expected[name], name
    for name in ("loss_sum", "weight_sum"):
        assert found[name] == pytest.approx(expected[name], rel=2e-6, abs=1e-5), name
    calibration = found["calibration"]
    assert [row["count"] for row in calibration["bins"]] == expected["bin_counts"]
    assert [row["correct"] for row in calibration["bins"]] == expected["bin_correct"]
    for name in ("ece", "mce", "brier"):
        assert calibration[name] == pytest.approx(expected[name], abs=3e-6, nan_ok=True), name
    if found["classes_shown"] == found["classes_total"]:
        rows = found["classes"]
        assert [row["count"] for row in rows] == expected["class_counts"]
        assert [row["predicted"] for row in rows] == expected["predicted"]
        for row, right in zip(rows, expected["class_right"], strict=True):
            assert row["accuracy"] == (right / row["count"] if row["count"] else None)
    largest = np.sort(expected["losses"])[::-1]
    for row, loss in zip(found["worst"], largest, strict=False):
        assert row["loss"] == pytest.approx(loss, rel=2e-6, abs=1e-5)
        flat = int(np.ravel_multi_index(row["index"], found["shape"])) if found["shape"] else 0
        at = int(np.flatnonzero(expected["places"] == flat)[0])
        assert expected["losses"][at] == pytest.approx(row["loss"], rel=2e-6, abs=1e-5)
        assert (row["label"], row["prediction"]) == expected["pairs"][at]
        assert row["confidence"] == pytest.approx(expected["confidence"][at], abs=3e-6)
        assert row["margin"] == pytest.approx(expected["margin"][at], rel=1e-9, abs=1e-9)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Array, Array, dict[str, Any]]:
    """Logits (as given, and as float64 with the classes last), labels and options."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    outer, inner = draw(st.integers(1, 40)), draw(st.sampled_from([(), (1,), (3,), (2, 5)]))
    classes = draw(st.sampled_from([1, 2, 5, 17, MATRIX, MATRIX + 1, 300]))
    dtype = draw(st.sampled_from(dtypes.FLOATS))
    rows = rng.normal(0, draw(st.sampled_from([0.5, 4.0])), (outer, *inner, classes))
    if draw(st.booleans()):
        rows = np.round(rows)  # equal logits, and confidences at edges
    labels = rng.integers(0, classes, (outer, *inner))
    labels[rng.random(labels.shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = -100
    options: dict[str, Any] = {"bins": draw(st.sampled_from([1, 2, 15]))}
    if draw(st.booleans()):
        options["weight"] = rng.random(classes) + 0.5
    if draw(st.booleans()):
        options["sample_weight"] = rng.integers(0, 3, labels.shape).astype(np.float64)
    options["temperature"] = draw(st.sampled_from([1.0, 2.0, 0.5]))
    options["label_smoothing"] = draw(st.sampled_from([0.0, 0.1]))
    return zoo.cast(rows, dtype), labels, options


def wide(array: Array) -> Array:
    return np.asarray(widened(array), np.float64)


@settings(max_examples=60, deadline=None)
@given(problems(), st.booleans(), st.integers(0, 12))
def test_numbers_are_those_of_an_oracle(
    problem: tuple[Array, Array, dict[str, Any]], first: bool, worst: int
) -> None:
    logits, labels, options = problem
    given_logits = np.ascontiguousarray(np.moveaxis(logits, -1, 0)) if first else logits
    axis = 0 if first else -1
    found = numbers(report_of(given_logits, labels, class_axis=axis, worst=worst, **options))
    assert found["positions"] == labels.size
    assert len(found["worst"]) == min(worst, found["count"])
    agrees(found, oracle(wide(logits), labels, **options))
    classes = logits.shape[-1]
    pairs = oracle(wide(logits), labels, **options)["pairs"]
    if classes <= MATRIX:
        matrix = np.zeros((classes, classes), int)
        np.add.at(matrix, tuple(np.array(pairs, int).reshape(-1, 2).T), 1)
        assert found["confusion"]["matrix"] == matrix.tolist()
    else:
        for pair in found["confusion"]["pairs"]:
            assert pair["label"] != pair["prediction"]
            assert pairs.count((pair["label"], pair["prediction"])) == pair["count"]
    json.dumps(found)


def split(report: Any, length: int, cuts: list[int]) -> list[Report]:
    ends = sorted({min(cut, length) for cut in cuts} | {length})
    return [report(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@settings(max_examples=40, deadline=None)
@given(problems(), st.lists(st.integers(0, 40), max_size=5), st.integers(1, 3000), st.booleans())
def test_any_split_merges_to_the_same_bits(
    problem: tuple[Array, Array, dict[str, Any]], cuts: list[int], step: int, backwards: bool
) -> None:
    """Parts merged from the left or from the right, and steps of any size."""
    logits, labels, options = problem
    samples = options.pop("sample_weight", None)
    layout = "sequence" if labels.ndim > 1 else "flat"

    def of(start: int, end: int) -> Report:
        some = None if samples is None else samples[start:end]
        return report_of(
            logits[start:end], labels[start:end], sample_weight=some, class_axis=-1, worst=5,
            layout=layout, **options,
        )  # fmt: skip

    whole = of(0, len(labels)).to_bytes()
    parts = [Report.from_bytes(part.to_bytes()) for part in split(of, len(labels), cuts)]
    if backwards:
        while len(parts) > 1:
            last = parts.pop()
            parts[-1].merge(last)
    else:
        for part in parts[1:]:
            parts[0].merge(part)
    assert parts[0].to_bytes() == whole
    checked, report = begin(
        logits, labels, sample_weight=samples, class_axis=-1, worst=5, layout=layout, **options
    )
    finish(in_steps(checked, report, step=step))
    assert report.to_bytes() == whole
    assert json.dumps(numbers(report)) == json.dumps(numbers(parts[0]))


def hard_rows(classes: int) -> tuple[Array, Array]:
    """Rows whose logits are equal, negative, of either zero, large, infinite or NaN; labels."""
    rng = np.random.default_rng(classes)
    rows = np.round(rng.normal(0, 2, (12, classes)) * 2) / 2
    rows[1] = -np.abs(rows[1]) - 1
    rows[2] = np.where(rng.random(classes) < 0.5, 0.0, -0.0)
    rows[3] = -1.0
    rows[3, 200:] = np.where(rng.random(classes - 200) < 0.5, 0.0, -0.0)
    rows[4] *= 3000.0
    rows[5, -1] = 40.0
    rows[6, 7] = np.nan
    rows[7, classes // 2] = np.inf
    rows[8, : classes - 1] = -np.inf
    rows[9] = -np.inf
    labels = rng.integers(0, classes, 12)
    labels[2], labels[3], labels[5], labels[8], labels[10] = classes - 1, 250, classes - 1, 3, 0
    return rows, labels


@pytest.mark.parametrize(
    "dtype", [dtypes.FLOAT32, dtypes.FLOAT16, dtypes.BFLOAT16], ids=lambda dtype: dtype.name
)
@pytest.mark.parametrize("classes", [257, 4096, 9000, 65536 + 33])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_one_pass_says_what_several_say(
    dtype: dtypes.DType, classes: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = hard_rows(classes)
    with np.errstate(over="ignore"):
        problem = check(zoo.cast(rows, dtype), labels, temperature=temperature)
    (piece,) = pieces(problem, problem.logits.nbytes)
    assert summarised(problem)
    one = finish(compute._computed(problem, piece, 15, 1 << 16))
    monkeypatch.setattr(compute, "summarised", lambda _: False)
    several = finish(compute._computed(problem, piece, 15, 1 << 16))
    for name in ("ranks", "predictions"):
        np.testing.assert_array_equal(getattr(one, name), getattr(several, name), name)
    # Losses of fewer classes, from several passes, are float32.
    tolerance = 3e-7 if classes <= MOST_IN_ROWS else 0.0
    for name in ("losses", "nll"):
        own, other = getattr(one, name), getattr(several, name)
        np.testing.assert_allclose(own, other, rtol=tolerance, atol=0.0, err_msg=name)
    np.testing.assert_allclose(one.confidences, several.confidences, rtol=4e-6)
    np.testing.assert_allclose(one.squares, several.squares, rtol=4e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("bins", [2, 5, 10, 15])
def test_a_confidence_at_an_edge_is_in_the_bin_above(dtype: dtypes.DType, bins: int) -> None:
    """Of k equal logits the confidence is 1 / k: an edge where k divides the bins."""
    for k in (k for k in range(2, bins + 1) if bins % k == 0):
        for scale in (0.0, 1.0, 37.0, 1000.0):
            logits = zoo.cast(np.full((3, k), scale), dtype)
            found = numbers(report_of(logits, np.zeros(3, int), bins=bins))["calibration"]
            counts = [row["count"] for row in found["bins"]]
            assert counts == [3 if i == bins // k else 0 for i in range(bins)]
            assert found["ece"] == found["mce"] == pytest.approx(1.0 - 1.0 / k, abs=2e-16)


@pytest.mark.parametrize("bins", [1, 2, 15])
def test_a_confidence_of_exactly_1_is_in_the_last_bin(bins: int) -> None:
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]], np.float32)
    found = numbers(report_of(logits, [0, 0], bins=bins))["calibration"]
    assert found["bins"][-1] == {
        "low": (bins - 1) / bins, "high": 1.0, "count": 2, "correct": 1, "confidence": 1.0,
        "accuracy": 0.5,
    }  # fmt: skip
    assert found["ece"] == found["mce"] == 0.5
    assert found["brier"] == 1.0


@pytest.mark.parametrize("truth", [0.25, 3.0])
@pytest.mark.parametrize("current", [1.0, 2.0])
def test_the_best_temperature_of_a_miscalibrated_model_is_found(
    truth: float, current: float
) -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (20000, 10))
    labels = (rng.random((20000, 1)) > softmax(logits).cumsum(1)).sum(1).clip(0, 9)
    report = report_of((logits * truth).astype(np.float32), labels, temperature=current)
    found = numbers(report)["calibration"]["temperature"]
    assert found["sample"] == 4096
    assert found["best"] == pytest.approx(truth, rel=0.06)
    assert found["best_loss"] < found["loss"]
    rows, own = report.sample.rows.astype(np.float64), report.sample.labels

    def loss(temperature: float) -> float:
        return float(-np.log(softmax(rows, temperature)[np.arange(len(own)), own]).mean())

    assert found["loss"] == pytest.approx(loss(current), rel=1e-5)
    assert found["best_loss"] == pytest.approx(loss(found["best"]), rel=1e-5)
    assert loss(found["best"]) < min(loss(found["best"] * 1.01), loss(found["best"] / 1.01))


@pytest.mark.parametrize(("label", "least", "most"), [(0, 1 / 64, 1 / 16), (1, 64, 64)])
def test_a_temperature_without_a_minimum_ends_at_a_bound(
    label: int, least: float, most: float
) -> None:
    """Or where the loss is 0 within rounding, if the label is the prediction everywhere."""
    found = numbers(report_of(np.array([[1.0, 0.0]], np.float32), [label]))
    assert least <= found["calibration"]["temperature"]["best"] <= most


@pytest.mark.parametrize("classes", [5, 300])
def test_equal_logits_have_no_better_temperature(classes: int) -> None:
    logits, labels = np.zeros((40, classes), np.float32), np.arange(40) % classes
    found = numbers(report_of(logits, labels, temperature=2.0))["calibration"]["temperature"]
    assert found["best"] == 2.0
    assert found["best_loss"] == found["loss"]


def test_quantiles_lie_in_their_bounds() -> None:
    logits = np.random.default_rng(1).normal(0, 5, (5000, 20)).astype(np.float32)
    labels = np.arange(5000) % 20
    found = numbers(report_of(logits, labels))["histogram"]
    losses = np.sort(kernels.cross_entropy(logits, labels, reduction="none").astype(np.float64))
    for name, share in (("median", 0.5), ("p90", 0.9), ("p99", 0.99)):
        bounds, exact = found[name], losses[math.ceil(share * 5000) - 1]
        assert bounds["low"] <= exact <= bounds["high"] <= bounds["low"] * 1.016
        assert bounds["low"] <= bounds["value"] <= bounds["high"]
    assert found["mean"] == pytest.approx(losses.mean())
    for name in ("linear", "log"):
        edges, counts = found[name]["edges"], found[name]["counts"]
        assert counts == np.histogram(losses, edges)[0].tolist()
        assert sum(counts) == 5000


def test_losses_that_are_no_numbers_are_counted_apart() -> None:
    logits = np.zeros((5, 3), np.float32)
    logits[1, 2], logits[2, 0], logits[3, 0] = np.nan, -np.inf, np.inf
    labels = [0, 0, 0, 1, -100]
    report = report_of(logits, labels)
    found = numbers(report)
    assert found["count"] == 4
    assert found["histogram"]["nan"] >= 1
    assert math.isnan(found["loss"])
    assert [row["index"] for row in found["worst"]][-1] == [0]
    assert math.isnan(found["worst"][0]["loss"])
    assert sum(found["histogram"]["log"]["counts"]) == 4 - found["histogram"]["nan"]
    assert Report.from_bytes(report.to_bytes()).to_bytes() == report.to_bytes()


@pytest.mark.parametrize(
    ("shape", "labels"), [((0, 3), (0,)), ((2, 3, 0), (2, 0)), ((3,), ()), ((2, 1), (2,))]
)
def test_reports_of_little(shape: tuple[int, ...], labels: tuple[int, ...]) -> None:
    report = report_of(np.zeros(shape, np.float32), np.zeros(labels, int))
    found = numbers(report)
    assert found["count"] == found["positions"] == math.prod(labels)
    assert math.isnan(found["loss"]) == (found["count"] == 0)
    assert Report.from_bytes(report.to_bytes()).to_bytes() == report.to_bytes()


def test_maps_have_the_labels_shape() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, (2, 4, 5, 6)).astype(np.float32)
    labels = rng.integers(0, 4, (2, 5, 6))
    labels[0, 0, 0] = -100
    problem, report = begin(logits, labels)
    maps = finish(in_steps(problem, report, maps=True, step=100))
    probs = softmax(np.moveaxis(logits.astype(np.float64), 1, -1))
    losses = kernels.cross_entropy(logits, labels, reduction="none")
    np.testing.assert_array_equal(maps["loss_map"], losses)
    np.testing.assert_array_equal(maps["prediction_map"], probs.argmax(-1))
    np.testing.assert_allclose(maps["confidence_map"], probs.max(-1), rtol=2e-6)
    np.testing.assert_array_equal(maps["label_map"], labels)
    np.testing.assert_array_equal(maps["counted_map"], labels != -100)
    assert {name: str(array.dtype) for name, array in maps.items()} == {
        "loss_map": "float32", "confidence_map": "float32", "prediction_map": "int32",
        "label_map": "int32", "counted_map": "uint8",
    }  # fmt: skip
    found = numbers(report)
    assert found["images"] == {"count": 2, "height": 5, "width": 6}
    at = tuple(found["worst"][0]["index"])
    assert losses[at] == losses.max()


def test_sequences_have_their_losses_in_order() -> None:
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(0, 3, (4, 6, 9)), rng.integers(0, 9, (4, 6))
    labels[1] = -100
    found = numbers(report_of(logits, labels, class_axis=-1))
    assert found["layout"] == "sequence"
    losses = kernels.cross_entropy(logits, labels, class_axis=-1, reduction="none")
    for row, own, given_labels in zip(found["sequences"], losses, labels, strict=True):
        kept = own[given_labels >= 0]
        assert row["losses"] == own.tolist()
        assert row["count"] == kept.size
        if kept.size:
            assert row["loss"] == pytest.approx(kept.mean())
            assert row["perplexity"] == pytest.approx(math.exp(kept.mean()))
        else:
            assert math.isnan(row["loss"])


def test_of_many_sequences_and_classes_those_of_most_loss_are_listed() -> None:
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(0, 1, (1500, 4, 1100)), rng.integers(0, 1100, (1500, 4))
    found = numbers(report_of(logits.astype(np.float32), labels, class_axis=-1))
    assert len(found["sequences"]) == len(found["classes"]) == 1000
    assert (found["sequences_total"], found["classes_total"]) == (1500, 1100)
    losses = kernels.cross_entropy(logits, labels, class_axis=-1, reduction="none").mean(1)
    shown = {row["index"] for row in found["sequences"]}
    assert shown == {*np.argsort(-losses)[:1000].tolist()}
    assert "losses" not in found["sequences"][0]


@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_memory_of_any_layout(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "STEP", 200)
    rng = np.random.default_rng(6)
    logits, labels = rng.normal(0, 2, (7, 5, 6)).astype(np.float32), rng.integers(0, 5, (7, 6))
    axes = np.moveaxis(logits.astype(np.float64), 1, -1)
    expected = oracle(axes, labels, bins=15)
    if layout == "F":
        logits = np.asfortranarray(logits)
    if layout == "strided":
        wider = np.zeros((7, 10, 6), np.float32)
        wider[:, ::2] = logits
        logits = wider[:, ::2]
    agrees(numbers(report_of(logits, labels)), expected)


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"bins": 0}, "bins", "must be 1 to 1000"),
        ({"worst": 1001}, "worst", "must be 0 to 1000"),
        ({"layout": "image"}, "layout", r"labels of shape \(N, H, W\)"),
        ({"layout": "round"}, "layout", "round"),
        ({"labels": np.full((2, 3), 1 / 3)}, "labels", "class indices"),
        ({"labels": [0, 3]}, "labels", r"labels\[1\]"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], field: str, said: str) -> None:
    arguments: dict[str, Any] = {"logits": np.zeros((2, 3), np.float32), "labels": [0, 1]}
    with pytest.raises(InvalidInput, match=said) as caught:
        report_of(**arguments | changes)
    assert caught.value.field == field


def test_reports_of_different_kinds_do_not_merge() -> None:
    one, other = (report_of(np.zeros((2, 3), np.float32), [0, 1], bins=bins) for bins in (2, 3))
    with pytest.raises(InvalidInput, match="differ in bins, 2 and 3"):
        one.merge(other)
    for content in (b"", b"PK\3\4", one.to_bytes()[:-30], np.arange(3).tobytes()):
        with pytest.raises(InvalidInput, match="no state of a report"):
            Report.from_bytes(content)
