"""The score of arrays: NumPy, spelled out, says what it must be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from kernels import InvalidInput, cross_entropy, dtypes, steps
from service.bulk import elements
from service.cli import scoring
from service.options import CrossEntropyOptions
from tests import oracle, zoo

DEFAULTS = CrossEntropyOptions()


def batch(shape: tuple[int, ...] = (40, 7), axis: int = 1) -> dict[str, zoo.Array]:
    random = np.random.default_rng(3)
    logits = random.normal(0, 3, shape)
    labels = random.integers(0, shape[axis], np.moveaxis(logits, axis, -1).shape[:-1])
    return {"logits": logits.astype(np.float32), "labels": labels}


def test_the_loss_is_the_kernels() -> None:
    tensors, weight = batch(), np.arange(7, dtype=np.float32)
    options = CrossEntropyOptions(label_smoothing=0.25, ignore_index=2)
    loss = cross_entropy(
        tensors["logits"], tensors["labels"], weight=weight, label_smoothing=0.25, ignore_index=2
    )
    found = scoring.score({**tensors, "weight": weight}, options, 0)
    assert np.float32(found.loss) == loss
    assert found.perplexity == pytest.approx(math.exp(loss), rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "axis"), [((40, 7), 1), ((7, 40), 0), ((3, 5, 4, 2), 1), ((3, 4, 5), -1)], ids=str
)
def test_the_accuracy_is_numpys(
    shape: tuple[int, ...], axis: int, dtype: dtypes.DType, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = batch(shape, axis)
    tensors["logits"] = zoo.cast(tensors["logits"], dtype)
    right = oracle.widen(tensors["logits"]).argmax(axis) == tensors["labels"]
    found = scoring.score(tensors, CrossEntropyOptions(class_axis=axis), 0)
    assert found.accuracy == pytest.approx(right.mean(), rel=1e-12)
    assert (found.elements, found.ignored) == (right.size, 0)
    shares = np.random.default_rng(4).random(shape)
    shares /= shares.sum(axis, keepdims=True)
    tensors["labels"] = zoo.cast(shares, dtype)
    likeliest = oracle.widen(tensors["labels"]).argmax(axis)
    right = oracle.widen(tensors["logits"]).argmax(axis) == likeliest
    for piece in (1, 100, 10**9):
        monkeypatch.setattr(elements, "_PIECE", piece)
        found = scoring.score(tensors, CrossEntropyOptions(class_axis=axis), 0)
        assert found.accuracy == pytest.approx(right.mean(), rel=1e-12)


def test_a_row_without_weight_counts_for_nothing() -> None:
    logits = np.array([[3.0, 0], [3, 0], [3, 0]], np.float32)
    tensors = {
        "logits": logits, "labels": np.array([1, 0, 0]), "sample_weight": np.array([1, 0, 0]),
    }  # fmt: skip
    found = scoring.score(tensors, DEFAULTS, 5)
    assert found.loss == pytest.approx(3.0485873)
    assert (found.accuracy, found.elements, found.ignored) == (0.0, 3, 2)
    assert [element.position for element in found.worst] == [[0]]
    tensors["sample_weight"] = np.array([1, 3, 0])
    assert scoring.score(tensors, DEFAULTS, 5).accuracy == 0.75
    shares = np.array([[0, 1], [1, 0], [0, 0]], np.float32)
    assert scoring.score(tensors | {"labels": shares}, DEFAULTS, 5).accuracy == 0.75


@pytest.mark.parametrize("at", [0, 1])
def test_a_row_with_a_nan_is_wrong(at: int) -> None:
    logits = np.array([[1.0, 1], [3, 0]], np.float32)
    logits[0, at] = np.nan
    for row in (dtypes.FLOAT32, dtypes.BFLOAT16):
        tensors = {"logits": zoo.cast(logits, row), "labels": np.array([at, 1])}
        assert scoring.score(tensors, DEFAULTS, 5).accuracy == 0.0
        tensors["labels"] = zoo.cast(np.eye(2)[[at, 1]], row)
        assert scoring.score(tensors, DEFAULTS, 5).accuracy == 0.0


@pytest.mark.parametrize("seed", range(6))
def test_every_figure_is_that_of_the_kernels_outputs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (30, 4, 2)).astype(np.float32)
    logits[rng.random(logits.shape) < 0.05] = rng.choice([np.nan, np.inf, -np.inf])
    labels = rng.integers(-1, 4, (30, 2))
    weights = rng.choice([0, 0.5, 1, 2], labels.shape)
    given: dict[str, Any] = {
        "ignore_index": -1,
        "temperature": 0.5,
        "softcap": [None, 3.0][seed % 2],
    }
    tensors: dict[str, Any] = {
        "logits": logits, "labels": labels, "sample_weight": weights, "weight": np.ones(4),
    }  # fmt: skip
    if seed % 3 == 0:
        del tensors["weight"]
    if seed == 5:
        tensors["weight"] = np.array([0, 1, 2, 3])
    found = scoring.score(tensors, CrossEntropyOptions(**given), 10)
    names = ["loss", "per_element", "rank", "prediction"]
    more: dict[str, Any] = {name: tensors.get(name) for name in ("weight", "sample_weight")}
    outputs = cross_entropy(logits, labels, outputs=names, **more, **given)
    counted = (labels != -1) & (weights != 0)
    assert str(found.loss) == str(float(str(outputs["loss"])))
    right = np.average(outputs["rank"][counted] == 0, weights=weights[counted])
    assert found.accuracy == pytest.approx(right, rel=1e-12)
    assert found.ignored == labels.size - counted.sum()
    places = sorted(
        map(tuple, np.argwhere(counted).tolist()),
        key=lambda at: (not np.isnan(outputs["per_element"][at]), -outputs["per_element"][at], at),
    )
    losses = [float(outputs["per_element"][at]) for at in places[:10]]
    assert [tuple(element.position) for element in found.worst][: losses.count(math.nan)] == places[
        : losses.count(math.nan)
    ]
    np.testing.assert_allclose([element.loss for element in found.worst], losses, rtol=1e-6)
    for element in found.worst:
        assert element.label == labels[tuple(element.position)]
        assert element.predicted == outputs["prediction"][tuple(element.position)]


def test_of_equals_the_first_are_the_worst() -> None:
    tensors: dict[str, Any] = {"logits": np.zeros((100, 3)), "labels": np.zeros(100, np.int64)}
    tensors["labels"][:50] = -100
    tensors["logits"][[70, 80], 1] = np.inf, np.nan
    found = scoring.score(tensors, DEFAULTS, 4)
    assert [element.position[0] for element in found.worst] == [70, 80, 50, 51]


def test_what_is_ignored_counts_nowhere() -> None:
    tensors = batch()
    tensors["labels"][::2] = -100
    kept = {name: array[1::2] for name, array in tensors.items()}
    found, expected = (scoring.score(each, DEFAULTS, 3) for each in (tensors, kept))
    assert (found.loss, found.accuracy) == (expected.loss, expected.accuracy)
    assert (found.elements, found.ignored) == (40, 20)
    assert [(2 * element.position[0] + 1, element.loss) for element in expected.worst] == [
        (element.position[0], element.loss) for element in found.worst
    ]


@pytest.mark.parametrize("rows", [0, 3], ids=["empty", "all ignored"])
def test_nothing_to_score_is_nan(rows: int) -> None:
    tensors = {"logits": np.zeros((rows, 4), np.float32), "labels": np.full(rows, -100)}
    found = scoring.score(tensors, DEFAULTS, 5)
    assert math.isnan(found.loss)
    assert math.isnan(found.perplexity)
    assert math.isnan(found.accuracy)
    assert found.worst == []


def test_one_row_alone() -> None:
    tensors = {"logits": np.array([1.0, 3.0, 2.0]), "labels": np.array(0)}
    found = scoring.score(tensors, DEFAULTS, 5)
    assert found.accuracy == 0.0
    assert found.worst == [scoring.Element([], 0, 1, found.loss)]


def test_probabilities_as_labels() -> None:
    logits = np.array([[2.0, 1.0], [1.0, 2.0], [1.0, 2.0]])
    labels = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    found = scoring.score({"logits": logits, "labels": labels}, DEFAULTS, 1)
    assert found.accuracy == pytest.approx(2 / 3)
    assert (found.worst[0].position, found.worst[0].label, found.worst[0].predicted) == ([1], 0, 1)


def test_the_worst_come_in_order_and_nan_first() -> None:
    logits = np.zeros((6, 2))
    logits[:, 0] = [1, 5, np.nan, 5, -2, 3]
    labels = np.ones(6, np.int64)
    found = scoring.score({"logits": logits, "labels": labels}, DEFAULTS, 4)
    assert [element.position for element in found.worst] == [[2], [1], [3], [5]]
    assert math.isnan(found.worst[0].loss)


def test_more_worst_than_elements_is_all_of_them() -> None:
    assert len(scoring.score(batch(), DEFAULTS, 10**6).worst) == 40


def test_a_large_loss_has_an_infinite_perplexity() -> None:
    tensors = {"logits": np.array([[0.0, 800.0]]), "labels": np.array([0])}
    assert scoring.score(tensors, DEFAULTS, 0).perplexity == math.inf


def test_the_shares_of_the_work_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (scoring, steps):
        monkeypatch.setattr(module, "STEP", 1 << 16)
    tensors = batch((3000, 40))
    for logits in (tensors["logits"], tensors["logits"][::-1, ::-1]):
        shares: list[float] = []
        scoring.score(tensors | {"logits": logits}, DEFAULTS, 0, shares.append)
        assert len(shares) > 3
        assert min(shares) >= 0
        assert sum(shares) == pytest.approx(1)
    shares = []
    scoring.score(
        {"logits": np.zeros((0, 3)), "labels": np.zeros(0, int)}, DEFAULTS, 0, shares.append
    )
    assert sum(shares) == 1


def test_a_label_out_of_range_is_the_kernels_error() -> None:
    tensors = batch()
    tensors["labels"][17] = 7
    with pytest.raises(InvalidInput) as error:
        scoring.score(tensors, DEFAULTS, 0)
    assert error.value.position == (17,)
