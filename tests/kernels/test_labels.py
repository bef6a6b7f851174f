"""The label proof: a label is a class, or is ignored, or is refused by position. Never read with.

``guarded.py`` holds that nothing outside an array is touched, on pages that fault when they are.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels import dtypes
from tests import oracle
from tests.oracle import Array

Layout = Callable[[Array], Array]

CLASSES = 5
LABELS = (
    -(2**63), -(2**31), -101, -100, -1, 0, CLASSES - 1, CLASSES, 127, 128, 156, 255, 256,
    2**16 - 100, 2**31 - 1, 2**31, 2**32 - 100, 2**32, 2**32 + 1, 2**63 - 1,
    2**63, 2**63 + 1, 2**64 - 101, 2**64 - 100, 2**64 - 1,
)  # fmt: skip
HELD = [
    pytest.param(integer, label, id=f"{integer.name}:{label}")
    for integer in dtypes.INTEGERS
    for label in LABELS
    if np.iinfo(integer.numpy).min <= label <= np.iinfo(integer.numpy).max
]
SHAPE = (7, 11)
LOGITS = np.random.default_rng(0).normal(0, 2, (7, CLASSES, 11)).astype(np.float32)


def labels_with(label: int, at: list[tuple[int, int]], integer: dtypes.DType) -> Array:
    """Valid labels, but for ``label`` at the given positions."""
    labels = np.random.default_rng(1).integers(0, CLASSES, SHAPE).astype(integer.numpy)
    for position in at:
        labels[position] = label
    return labels


def check(labels: Array, ignore_index: int, lying: Array) -> None:
    """Right or refused, in both functions that take labels."""
    bad = oracle.first_bad_label(labels, CLASSES, ignore_index)
    for function in (kernels.cross_entropy, kernels.nll_loss):
        if bad is None:
            got = function(LOGITS, lying, ignore_index=ignore_index, reduction="none")
            reference = getattr(oracle, function.__name__)
            want = reference(LOGITS, labels, ignore_index=ignore_index, reduction="none")
            oracle.assert_close(got, want)
            continue
        with pytest.raises(kernels.InvalidInput) as caught:
            function(LOGITS, lying, ignore_index=ignore_index)
        assert caught.value.field == "labels"
        assert caught.value.position == bad
        assert str(labels[bad]) in caught.value.message


@pytest.mark.parametrize(("integer", "label"), HELD)
def test_right_or_refused(integer: dtypes.DType, label: int) -> None:
    """In the first, the last and a middle place; -100 is ignored, and only a true -100 is."""
    for place in ((0, 0), (3, 4), (6, 10)):
        labels = labels_with(label, [place], integer)
        check(labels, -100, labels)


@pytest.mark.parametrize(("integer", "label"), HELD)
def test_any_integer_may_be_the_ignored_one(integer: dtypes.DType, label: int) -> None:
    """Also a class, and also where its low bits are those of another label. As in PyTorch it is
    itself an int64.
    """
    labels = labels_with(label, [(0, 0), (2, 3), (6, 10)], integer)
    for ignore_index in (label, label - 2**64, label + 2**64, label ^ 2**32, -1, -(2**63)):
        if -(2**63) <= ignore_index < 2**63:
            check(labels, ignore_index, labels)
            continue
        with pytest.raises(kernels.InvalidInput) as caught:
            kernels.cross_entropy(LOGITS, labels, ignore_index=ignore_index)
        assert caught.value.field == "ignore_index"


@pytest.mark.parametrize("integer", dtypes.INTEGERS, ids=lambda integer: integer.name)
def test_first_in_c_order_whatever_the_layout(integer: dtypes.DType, layout: Layout) -> None:
    """Two or more bad labels: the first in C order of the index, not in memory."""
    for at in ([(0, 10), (1, 0)], [(2, 1), (3, 0)], [(6, 10), (0, 1)], [(5, 5), (5, 4), (6, 0)]):
        labels = labels_with(77, at, integer)
        check(labels, -100, layout(labels))


def test_first_of_many_threads() -> None:
    """A long array is proved by several threads; the first bad label still wins."""
    logits = np.zeros((300_000, 2), np.float32)
    for places in ([299_999], [150_000, 299_999], [7, 150_000], [149_999, 150_001, 200_000]):
        labels = np.ones(300_000, np.int32)
        labels[places] = np.arange(2, 2 + len(places))
        with pytest.raises(kernels.InvalidInput) as caught:
            kernels.cross_entropy(logits, labels)
        assert caught.value.position == (places[0],)


def test_single_label() -> None:
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(np.zeros(3, np.float32), np.array(3))
    assert caught.value.field == "labels"
    assert caught.value.position == ()


def guarded(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-X", "faulthandler=0", "-m", "tests.kernels.guarded", *arguments],
        cwd=root, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_nothing_outside_an_array_is_touched() -> None:
    """Hundreds of shapes, every dtype, inputs and outputs ending or starting at a guard page."""
    done = guarded("sweep")
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 500


@pytest.mark.parametrize("way", ["read-after", "read-before", "write-input", "write-output"])
def test_guard_pages_bite(way: str) -> None:
    """The test of the test above: one element too far, and the process is gone."""
    assert guarded(way).returncode == -signal.SIGSEGV


def test_a_signalling_nan_is_a_nan(recwarn: pytest.WarningsRecorder) -> None:
    """NumPy warns when it converts one; the tests take warnings for errors."""
    odd = np.array([0x7FA00000], np.uint32).view(np.float32)
    with pytest.raises(kernels.InvalidInput, match=r"weight\[0\] is nan"):
        kernels.cross_entropy(np.zeros((1, 1)), np.zeros(1, np.int64), weight=odd)
    with pytest.raises(kernels.InvalidInput, match="sums to nan"):
        kernels.cross_entropy(np.zeros((1, 1)), odd.reshape(1, 1))
    loss = kernels.cross_entropy(np.zeros((1, 1)), odd.reshape(1, 1), check_probabilities=False)
    assert np.isnan(loss)
    assert not recwarn.list
