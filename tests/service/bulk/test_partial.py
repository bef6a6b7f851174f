"""Partials: whatever the cut and the order, the total has the bits of one sum in order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.reduce import add_blocks, sum_all_blocks
from kernels.report.exact import ExactSums
from service.bulk import partial, total
from service.bulk.partial import COUNTS, EXACT, HEADER, WORST, Partial
from service.bulk.total import Total
from tests.zoo import Array

MOST = 4


def values_of(size: int, seed: int) -> Array:
    """Losses and weights of all sizes, so that any other order of adding has other bits."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.lognormal(0, 9, (2, size)))


def partials(values: Array, cuts: list[int]) -> list[bytes]:
    """Partials of ``values``, cut at the positions ``cuts``."""
    ends = sorted({0, values.shape[1], *cuts})
    found = []
    for first, stop in itertools.pairwise(ends):
        own = values[:, first:stop]
        exact = ExactSums(len(EXACT))
        exact.add(np.arange(first, stop) % len(EXACT), own[0])
        counts = dict(zip(COUNTS, range(first, first + len(COUNTS)), strict=True))
        order = np.lexsort((np.arange(first, stop), -own[0]))[:MOST]
        worst = np.zeros(len(order), WORST)
        worst["loss"], worst["position"] = own[0][order], order + first
        found.append(Partial(first, counts, own, exact, worst).to_bytes())
    return found


def state(found: Total) -> list[object]:
    return [found.sums(), found.counts, found.exact.totals().tolist(), found.worst.tolist()]


def summed(parts: list[bytes]) -> Total:
    found = Total(MOST)
    found.add(parts)
    return found


sizes = st.integers(0, 300)


@given(sizes, st.lists(sizes, max_size=12), st.integers(0, 99), st.integers(1, 5))
def test_the_bits_do_not_depend_on_the_cuts(
    size: int, cuts: list[int], seed: int, together: int
) -> None:
    values = values_of(size, seed)
    cuts = [cut for cut in cuts if cut <= size]
    parts = partials(values, cuts)
    found = Total(MOST)
    for at in range(0, len(parts), together):
        # A total may be put away between any two partials.
        found = Total.from_bytes(found.to_bytes(), MOST)
        found.add(parts[at : at + together])
    assert found.sums() == add_blocks(sum_all_blocks(values))
    assert found.position == size
    if not cuts or not size:
        return
    whole = summed(partials(values, []))
    assert state(found)[2:] == state(whole)[2:]
    assert found.counts == {
        name: sum(int.from_bytes(part[8 * (3 + i) : 8 * (4 + i)], "little") for part in parts)
        for i, name in enumerate(COUNTS)
    }


@given(sizes, sizes, sizes)
def test_what_is_missing_counts_as_ignored(size: int, one: int, other: int) -> None:
    values = values_of(size, 1)
    first, stop = sorted(min(cut, size) for cut in (one, other))
    parts = partials(values, [first, stop])
    if first < stop:
        index = next(i for i, part in enumerate(parts) if header(part)["first"] == first)
        parts[index] = partial.blank(first, stop)
    values[:, first:stop] = 0.0
    assert summed(parts).sums() == add_blocks(sum_all_blocks(values))


def header(part: bytes) -> Array:
    return np.asarray(np.frombuffer(part[: HEADER.itemsize], HEADER)[0])


@given(st.lists(st.sampled_from([0.0, 1.0, 1.0, 7.5, np.inf, np.nan]), max_size=40))
def test_the_worst_come_first_nan_before_all_and_of_equals_the_first(losses: list[float]) -> None:
    records = np.zeros(len(losses), WORST)
    records["loss"], records["position"] = losses, np.arange(len(losses))
    shuffled = np.random.default_rng(1).permutation(records)
    order = sorted(
        range(len(losses)), key=lambda i: (not np.isnan(losses[i]), -np.nan_to_num(losses[i]), i)
    )
    for most in (0, 1, 3, 50):
        found = partial.worst_of(shuffled, most)
        assert found["position"].tolist() == order[:most]


def test_partials_out_of_order_are_refused() -> None:
    parts = partials(values_of(100, 1), [40])
    for wrong in (parts[::-1], parts[1:], [parts[0], parts[0]]):
        with pytest.raises(ValueError, match="order"):
            summed(wrong)


@pytest.mark.parametrize("spoil", [lambda part: part[:-8], lambda part: part + bytes(8)])
def test_other_bytes_are_refused(spoil: object) -> None:
    part = partials(values_of(100, 1), [])[0]
    assert callable(spoil)
    for wrong in (b"", b"no", part[: HEADER.itemsize - 8], spoil(part), b"\7" + part[1:]):
        with pytest.raises(ValueError, match=r"bytes of partials"):
            summed([wrong])


def test_infinities_and_nan_add_up_as_in_one_sum() -> None:
    values = values_of(200, 2)
    values[0, [3, 70]] = np.inf, -np.inf
    values[1, 150] = np.nan
    found = summed(partials(values, [10, 64, 130]))
    want = add_blocks(sum_all_blocks(values))
    assert np.array_equal(found.sums(), want, equal_nan=True)
    assert total.TOGETHER > 1
