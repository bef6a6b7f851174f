"""Outputs written to arrays of the caller's: the same bits, in any order that kernels can walk."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import kernels
from kernels.simd.stream import PAST

Array = np.ndarray[Any, Any]
BOTH = ("loss", "log_probs", "gradient")


def _bits(array: Array) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def _problem(*shape: int, axis: int = 1) -> tuple[Array, Array]:
    random = np.random.default_rng(3)
    labels = random.integers(0, shape[axis], shape[:axis] + shape[axis + 1 :])
    labels.reshape(-1)[::5] = -100
    return random.standard_normal(shape, np.float32) * 4, labels


def _wide(logits: Array) -> Array:
    """Array for a gradient whose rows are not neighbours."""
    return np.full((*logits.shape[:-1], logits.shape[-1] + 7), 9, np.float32)[..., 3:-4]


def _turned(logits: Array) -> Array:
    """Array for a gradient, with the classes last in memory."""
    return np.moveaxis(np.empty(np.moveaxis(logits, 1, -1).shape, np.float32), -1, 1)


@pytest.mark.parametrize(
    ("shape", "given", "out"),
    [
        ((5, 300), lambda x: x, np.empty_like),
        ((5, 300), lambda x: x, _wide),
        ((5, 300), _wide, np.empty_like),
        ((5, 300), np.asfortranarray, np.empty_like),
        ((40, 3, 5, 6), lambda x: x, np.empty_like),
        ((40, 3, 30), lambda x: x, _wide),
        ((40, 3, 5, 6), lambda x: np.repeat(x, 2, 3)[..., ::2], _turned),
        ((40, 3, 5, 6), _turned, np.empty_like),
        ((0, 3), lambda x: x, np.empty_like),
    ],
)
def test_the_same_bits_in_the_same_array(
    shape: tuple[int, ...], given: Callable[[Array], Array], out: Callable[[Array], Array]
) -> None:
    """Of rows and planes, in the logits' order and others; again in memory that was used before."""
    numbers, labels = _problem(*shape)
    logits = given(numbers)
    logits[...] = numbers
    new = kernels.cross_entropy(logits, labels, outputs=BOTH)
    arrays = {name: out(logits) for name in ("gradient", "log_probs")}
    for _ in range(2):
        answers = kernels.cross_entropy(logits, labels, outputs=BOTH, out=arrays)
        assert list(answers) == list(BOTH)
        for name, array in arrays.items():
            assert answers[name] is array
            assert _bits(array) == _bits(new[name])
        assert _bits(answers["loss"]) == _bits(new["loss"])
    alone = {"gradient": arrays["gradient"]}
    alone["gradient"][...] = 7
    again = kernels.cross_entropy(logits, labels, outputs=BOTH, out=alone)
    assert again["gradient"] is alone["gradient"]
    assert all(_bits(again[name]) == _bits(new[name]) for name in BOTH)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_dtypes_of_results(dtype: Any) -> None:
    numbers, labels = _problem(4, 70)
    logits, kind = numbers.astype(dtype), np.float64 if dtype is np.float64 else np.float32
    gradient = np.empty(logits.shape, kind)
    kernels.cross_entropy(
        logits, labels, outputs=("gradient",), out={"gradient": gradient}, label_smoothing=0.1
    )
    new = kernels.cross_entropy(logits, labels, outputs=("gradient",), label_smoothing=0.1)
    assert _bits(gradient) == _bits(new["gradient"])


def test_what_lies_around_an_array_is_kept() -> None:
    logits, labels = _problem(6, 50)
    around = np.full((6, 57), 9, np.float32)
    kernels.cross_entropy(logits, labels, outputs=("gradient",), out={"gradient": around[:, 3:-4]})
    assert (around[:, :3] == 9).all()
    assert (around[:, -4:] == 9).all()


def test_class_probabilities() -> None:
    logits, _ = _problem(6, 50)
    soft = np.random.default_rng(0).dirichlet(np.ones(50), 6).astype(np.float32)
    gradient = np.empty_like(logits)
    kernels.cross_entropy(logits, soft, outputs=("gradient",), out={"gradient": gradient})
    new = kernels.cross_entropy(logits, soft, outputs=("gradient",))["gradient"]
    assert _bits(gradient) == _bits(new)


@pytest.mark.parametrize("function", [kernels.log_softmax, kernels.softmax])
def test_softmax(function: Callable[..., Array]) -> None:
    logits, _ = _problem(6, 50)
    out = np.empty_like(logits)
    assert function(logits, out=out) is out
    assert _bits(out) == _bits(function(logits))
    with pytest.raises(kernels.InvalidInput, match=r"out has shape \(6, 49\)"):
        function(logits, out=np.empty((6, 49), np.float32))


def test_binary_cross_entropy() -> None:
    logits, _ = _problem(6, 50)
    labels = np.random.default_rng(0).integers(0, 2, logits.shape)
    new = kernels.binary_cross_entropy(logits, labels, outputs=("loss", "gradient"))
    out = {"gradient": np.empty_like(logits)}
    answers = kernels.binary_cross_entropy(logits, labels, outputs=("loss", "gradient"), out=out)
    assert answers["gradient"] is out["gradient"]
    assert _bits(answers["gradient"]) == _bits(new["gradient"])
    with pytest.raises(kernels.InvalidInput, match=r"as np\.empty\(\(6, 50\), np\.float32\) does"):
        kernels.binary_cross_entropy(
            logits, labels, outputs=("gradient",), out={"gradient": _wide(logits)}
        )


def test_kl_div() -> None:
    logits, _ = _problem(6, 50)
    targets = logits[::-1].copy()
    sparse = {
        "target_classes": np.argsort(targets)[:, :4],
        "target_top_log_probs": np.sort(kernels.log_softmax(targets))[:, :4],
    }
    for teacher in ({"target_logits": targets}, sparse):
        new = kernels.kl_div(logits, **teacher, outputs=("loss", "gradient"))
        out = {"gradient": np.empty_like(logits)}
        answers = kernels.kl_div(logits, **teacher, outputs=("loss", "gradient"), out=out)
        assert answers["gradient"] is out["gradient"]
        assert _bits(answers["gradient"]) == _bits(new["gradient"])
    planes, targets = _problem(4, 5, 6)[0], _problem(4, 5, 6)[0] / 2
    new = kernels.kl_div(planes, targets, outputs=("gradient",))["gradient"]
    gradient = _turned(planes)
    kernels.kl_div(planes, targets, outputs=("gradient",), out={"gradient": gradient})
    assert _bits(gradient) == _bits(new)
    right = "as np.moveaxis(np.empty((4, 6, 5), np.float32), -1, 1) does"
    with pytest.raises(kernels.InvalidInput, match=re.escape(right)):
        kernels.kl_div(
            planes, targets, outputs=("gradient",), out={"gradient": np.empty_like(planes)}
        )


def _locked(shape: tuple[int, ...]) -> Array:
    array = np.empty(shape, np.float32)
    array.flags.writeable = False
    return array


def _across(shape: tuple[int, ...]) -> Array:
    """Array whose elements do not lie at multiples of their size."""
    return np.empty(4 * int(np.prod(shape)) + 1, np.uint8)[1:].view(np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([[0.0]], "out['gradient'] is a list; it must be a NumPy array"),
        (np.empty((3, 7), np.float32), "has shape (3, 7); it must have that of the logits, (4, 7)"),
        (np.empty((4, 7)), "holds float64; of float32 logits it must be float32"),
        (np.empty((4, 7), ">f4"), "holds >f4; of float32 logits it must be float32"),
        (_locked((4, 7)), "is read-only; it must be writeable"),
        (_across((4, 7)), "as np.empty_like(logits, dtype=np.float32) does"),
        (np.empty((7, 4), np.float32).T, "as np.empty_like(logits, dtype=np.float32) does"),
        (np.empty((4, 14), np.float32)[:, ::2], "as np.empty_like(logits, dtype=np.float32) does"),
        (np.empty((4, 7), np.float32)[::-1], "as np.empty_like(logits, dtype=np.float32) does"),
        (
            np.lib.stride_tricks.as_strided(np.empty(7, np.float32), (4, 7), (0, 4)),
            "as np.empty_like(logits, dtype=np.float32) does",
        ),
    ],
)
def test_refused_arrays(array: Any, message: str) -> None:
    logits, labels = _problem(4, 7)
    with pytest.raises(kernels.InvalidInput, match=re.escape(message)) as caught:
        kernels.cross_entropy(logits, labels, outputs=("gradient",), out={"gradient": array})
    assert caught.value.field == "out"


@pytest.mark.parametrize(
    ("outputs", "out", "message"),
    [
        (("gradient",), np.empty((4, 7)), 'out is a ndarray; it maps outputs to arrays, as {"gr'),
        (None, {"gradient": np.empty((4, 7))}, "out has 'gradient', which outputs does not list"),
        (("loss",), {"loss": np.empty(())}, "has 'loss'; only log_probs and gradient are written"),
    ],
)
def test_refused_names(outputs: Any, out: Any, message: str) -> None:
    logits, labels = _problem(4, 7)
    with pytest.raises(kernels.InvalidInput, match=re.escape(message)) as caught:
        kernels.cross_entropy(logits, labels, outputs=outputs, out=out)
    assert caught.value.field == "out"


def test_shared_memory_is_refused() -> None:
    """An array of the results must be none of the tensors, and no other array of the results."""
    logits, labels = _problem(4, 7)
    array = np.empty_like(logits)
    weight = array.reshape(-1)[:7]
    weight[...] = 1.0
    cases: list[tuple[dict[str, Array], dict[str, Any], str]] = [
        ({"gradient": logits}, {}, "logits"),
        ({"log_probs": array}, {"weight": weight}, "weight"),
        ({"gradient": array, "log_probs": array}, {}, "out['log_probs']"),
    ]
    for out, options, other in cases:
        with pytest.raises(kernels.InvalidInput, match=re.escape(f"shares memory with {other}")):
            kernels.cross_entropy(logits, labels, outputs=BOTH, out=out, **options)
    soft = np.full_like(logits, 1 / 7)
    with pytest.raises(kernels.InvalidInput, match="shares memory with labels"):
        kernels.cross_entropy(logits, soft, outputs=BOTH, out={"gradient": soft})


def test_an_impossible_label_is_reported() -> None:
    logits, labels = _problem(4, 7)
    labels[2] = 7
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(
            logits, labels, outputs=("gradient",), out={"gradient": np.empty_like(logits)}
        )
    assert (caught.value.field, caught.value.position) == ("labels", (2,))


@pytest.mark.parametrize(("classes", "dtype"), [(1024, np.float64), (4099, np.float32)])
def test_results_past_the_caches(classes: int, dtype: Any) -> None:
    """Results of 32 MiB and more, stored past the caches, have the bits of smaller ones."""
    rows = PAST // np.dtype(dtype).itemsize // classes + 2
    numbers, labels = _problem(rows, classes)
    logits, half = numbers.astype(dtype), rows // 2
    targets = logits[::-1].copy()
    whole = kernels.cross_entropy(logits, labels, reduction="sum", outputs=BOTH)
    slopes = kernels.kl_div(logits, targets, reduction="sum", outputs=("gradient",))["gradient"]
    for part in (slice(0, half), slice(half, rows)):
        some = kernels.cross_entropy(logits[part], labels[part], reduction="sum", outputs=BOTH)
        for name in ("gradient", "log_probs"):
            assert _bits(some[name]) == _bits(whole[name][part])
        fewer = kernels.kl_div(logits[part], targets[part], reduction="sum", outputs=("gradient",))
        assert _bits(fewer["gradient"]) == _bits(slopes[part])
