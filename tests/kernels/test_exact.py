"""Exact sums: those of fractions, in any order."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels.report import exact
from kernels.report.exact import ExactSums

VALUES = st.lists(
    st.tuples(st.integers(0, 3), st.floats(allow_nan=False, allow_infinity=False)), max_size=30
)


def sums_of(pairs: list[tuple[int, float]], groups: int = 4) -> ExactSums:
    sums = ExactSums(groups)
    sums.add(np.array([group for group, _ in pairs], np.int64), np.array([v for _, v in pairs]))
    return sums


def rounded(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


@settings(max_examples=200, deadline=None)
@given(VALUES, st.integers(0, 30))
@example([(0, -0.5), (0, 0.5)], 1)
@example([(0, 1e300), (1, -2.0), (0, -1e300), (1, 2.0)], 2)
@example([(0, -5e-324), (2, 3.0), (0, 5e-324)], 1)
def test_sums_are_those_of_fractions_and_merge_to_the_same_limbs(
    pairs: list[tuple[int, float]], cut: int
) -> None:
    whole, parts = sums_of(pairs), sums_of(pairs[cut:])
    parts.merge(sums_of(pairs[:cut]))
    exactly = [sum((Fraction(v) for g, v in pairs if g == group), Fraction()) for group in range(4)]
    for value, expected in zip(whole.totals().tolist(), exactly, strict=True):
        assert math.isclose(value, rounded(expected), rel_tol=1e-15, abs_tol=5e-324)
    assert whole.total() == rounded(sum(exactly, Fraction()))
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(parts.arrays()[name], array)
    again = ExactSums.from_arrays(whole.arrays())
    np.testing.assert_array_equal(again.totals(), whole.totals())
    some = np.array([3, 0])
    np.testing.assert_array_equal(whole.of(some).totals(), whole.totals()[some])


@given(st.lists(st.integers(0, 2**33), min_size=1, max_size=4), VALUES)
def test_whole_numbers_are_added_as_floats_are(
    numbers: list[int], pairs: list[tuple[int, float]]
) -> None:
    sums, wanted = sums_of(pairs), sums_of([*pairs, *enumerate(map(float, numbers))])
    sums.add_whole(numbers)
    for name, array in wanted.arrays().items():
        np.testing.assert_array_equal(sums.arrays()[name], array)


def test_values_that_are_not_finite_add_up_as_ieee_754_has_it() -> None:
    inf, nan = math.inf, math.nan
    sums = sums_of([(0, inf), (0, 1.0), (1, -inf), (2, inf), (2, -inf), (3, nan), (3, inf)])
    np.testing.assert_array_equal(sums.totals(), [inf, -inf, nan, nan])
    assert math.isnan(sums.total())
    assert sums_of([(0, inf), (1, 2.0)]).total() == inf


def test_carries_are_propagated_before_limbs_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_CARRIED_AFTER", 10)
    sums = sums_of([(0, 2.0**31)])
    for _ in range(100):
        sums.add(np.zeros(1, np.int64), np.array([2.0**31]))
        assert sums._added <= 10
    assert sums.total() == 101 * 2.0**31


def test_groups_grow_where_other_groups_come_behind() -> None:
    sums = sums_of([(0, 1.0), (1, -2.5)], groups=2)
    sums.merge(sums_of([(0, 7.0), (1, math.inf)], groups=2), at=2)
    assert sums.totals().tolist() == [1.0, -2.5, 7.0, math.inf]
