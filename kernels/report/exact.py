"""Exact sums of float64 values by group, which do not depend on the order of addition.

A sum is kept as a fixed-point number in limbs of 32 bits, as in a superaccumulator (R. M. Neal,
"Fast exact summation using small and large superaccumulators", 2015), so that parts of the data
merge to the same bits however it was split. Limbs are int64: a position adds less than 2**33 to
each, so 2**29 additions fit before carries are propagated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_BITS = 32
_MASK = (1 << _BITS) - 1
# Limb number i counts units of 2**(32 * i - _OFFSET): the least float64, 2**-1074, is in limb 0.
_OFFSET = 1152
_CARRIED_AFTER = 1 << 29
# Bits of a float64's fraction, its largest exponent field, and the power of two that its integer
# is in units of: 2**(field - _UNIT).
_FRACTION, _EXPONENTS, _UNIT = 52, 0x7FF, 1075
_ODD = (("nan", np.isnan), ("plus", np.isposinf), ("minus", np.isneginf))


class ExactSums:
    """Sums of float64 values by group, each rounded once when it is asked for.

    ``groups`` is their number. NaN and infinities are counted apart, and add up as in IEEE 754.
    """

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self._limbs: dict[int, Array] = {}
        self._odd: dict[str, Array] = {}
        self._added = 0

    def add(self, groups: Array, values: Array) -> None:
        """Add each of ``values`` to the sum of its group; both are one-dimensional."""
        bits = np.ascontiguousarray(values, np.float64).view(np.int64)
        exponents = (bits >> _FRACTION) & _EXPONENTS
        if exponents.max(initial=0) == _EXPONENTS:
            finite = exponents != _EXPONENTS
            for name, test in _ODD:
                np.add.at(self._counts(name), groups[test(values)], 1)
            groups, bits, exponents = groups[finite], bits[finite], exponents[finite]
        self._count(len(bits))
        whole = bits & ((1 << _FRACTION) - 1)
        whole |= np.minimum(exponents, 1) << _FRACTION  # but for subnormal numbers, of exponent 0
        signs = bits >> 63
        whole ^= signs
        whole -= signs
        places = np.maximum(exponents, 1) + (_OFFSET - _UNIT)
        numbers, shifts = places >> 5, places & (_BITS - 1)
        low, high = (whole & _MASK) << shifts, (whole >> _BITS) << shifts
        parts = (low & _MASK, (low >> _BITS) + (high & _MASK), high >> _BITS)
        some = np.flatnonzero(np.bincount(numbers)).tolist()
        for number in some:
            for i, part in enumerate(parts):
                limb = self._limb(number + i)
                if len(some) == 1:
                    np.add.at(limb, groups, part)
                else:
                    chosen = numbers == number
                    np.add.at(limb, groups[chosen], part[chosen])

    def add_whole(self, numbers: Sequence[int]) -> None:
        """Add one of ``numbers``, from 0 to 2**33, to the sum of each of the first groups."""
        self._count(1)
        self._limb(_OFFSET // _BITS)[: len(numbers)] += numbers

    def merge(self, other: ExactSums, at: int = 0) -> None:
        """Add the sums of ``other``, whose group 0 is group ``at`` here, with more groups if so."""
        self.groups = max(self.groups, at + other.groups)
        first, rows = other.limbs()
        for i, row in enumerate(rows):
            self._limb(first + i)[at : at + other.groups] += row
        for name, counts in other._odd.items():
            self._counts(name)[at : at + other.groups] += counts
        self._limbs = {number: self._wide(row) for number, row in self._limbs.items()}
        self._odd = {name: self._wide(row) for name, row in self._odd.items()}
        self._count(1)

    def of(self, groups: Array) -> ExactSums:
        """The sums of some ``groups``."""
        some = ExactSums(len(groups))
        some._limbs = {number: self._limb(number)[groups] for number in self._limbs}
        some._odd = {name: self._counts(name)[groups] for name in self._odd}
        some._added = self._added
        return some

    def limbs(self) -> tuple[int, Array]:
        """Number of the first limb, and int64 limbs of shape (limbs, groups), from low to high.

        Equal sums have equal limbs: all but the highest are from 0 to 2**32 - 1.
        """
        used = [number for number, row in self._limbs.items() if row.any()]
        if not used:
            return 0, np.empty((0, self.groups), np.int64)
        first = min(used)
        rows = [self._limb(number).copy() for number in range(first, max(used) + 1)]
        return _carried(first, rows)

    def totals(self) -> Array:
        """Float64 sums, one a group, within a few units in the last place of the exact ones."""
        first, rows = self.limbs()
        negative = rows[-1] < 0 if len(rows) else np.zeros(self.groups, bool)
        if negative.any():  # magnitudes: no digits cancel
            first, rows = _carried(first, [*(rows * np.where(negative, -1, 1))])
        totals = np.zeros(self.groups)
        with np.errstate(over="ignore"):
            for i, row in enumerate(rows):
                totals += np.ldexp(row.astype(np.float64), _BITS * (first + i) - _OFFSET)
        totals[negative] *= -1.0
        return self._with_odd(totals)

    def total(self) -> float:
        """Sum of all groups, rounded once."""
        first, rows = self.limbs()
        whole = sum(int(row.sum()) << (_BITS * (first + i)) for i, row in enumerate(rows))
        try:
            total = whole / (1 << _OFFSET)
        except OverflowError:
            total = math.inf if whole > 0 else -math.inf
        all_groups = {name: np.array([row.any()]) for name, row in self._odd.items()}
        return float(_odd_values(np.array([total]), all_groups)[0])

    def arrays(self) -> dict[str, Array]:
        """Arrays that ``from_arrays`` makes equal sums of."""
        first, rows = self.limbs()
        odd = {name: row for name, row in self._odd.items() if row.any()}
        return {"first": np.array(first), "limbs": rows, **odd}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> ExactSums:
        """Sums of which ``arrays`` were made."""
        rows = arrays["limbs"].astype(np.int64)
        sums = cls(rows.shape[1])
        sums._limbs = {int(arrays["first"]) + i: row.copy() for i, row in enumerate(rows)}
        sums._odd = {name: arrays[name].copy() for name, _ in _ODD if name in arrays}
        return sums

    def _count(self, added: int) -> None:
        self._added += added
        if self._added > _CARRIED_AFTER:
            first, rows = self.limbs()
            self._limbs = {first + i: row.copy() for i, row in enumerate(rows)}
            self._added = 0

    def _limb(self, number: int) -> Array:
        return self._row(self._limbs, number)

    def _counts(self, name: str) -> Array:
        return self._row(self._odd, name)

    def _row(self, rows: dict[Any, Array], key: Any) -> Array:
        if key not in rows:
            rows[key] = np.zeros(self.groups, np.int64)
        elif len(rows[key]) < self.groups:
            rows[key] = self._wide(rows[key])
        return rows[key]

    def _wide(self, row: Array) -> Array:
        missing = self.groups - len(row)
        return np.concatenate([row, np.zeros(missing, np.int64)]) if missing else row

    def _with_odd(self, totals: Array) -> Array:
        return _odd_values(totals, {name: row > 0 for name, row in self._odd.items()})


def _odd_values(totals: Array, odd: Mapping[str, Array]) -> Array:
    """Replace ``totals`` by infinity or NaN where such values were added."""
    none = np.zeros(len(totals), bool)
    plus, minus = odd.get("plus", none), odd.get("minus", none)
    totals = np.where(plus, np.inf, np.where(minus, -np.inf, totals))
    return np.where(odd.get("nan", none) | (plus & minus), np.nan, totals)


def _carried(first: int, rows: list[Array]) -> tuple[int, Array]:
    """Propagate carries of ``rows``, limbs from number ``first`` on, into one form a value."""
    if len(rows) == 1 and rows[0].min() >= 0 and rows[0].max() <= _MASK:
        return first, rows[0][np.newaxis]  # nothing to carry
    i = 0
    while i < len(rows) - 1 or not ((rows[-1] == 0) | (rows[-1] == -1)).all():
        if i == len(rows) - 1:
            rows.append(np.zeros_like(rows[-1]))
        rows[i + 1] = rows[i + 1] + (rows[i] >> _BITS)
        rows[i] = rows[i] & _MASK
        i += 1
    while len(rows) > 1 and ((rows[-1] == 0) | (rows[-1] == -1)).all():
        top = rows.pop()
        rows[-1] = rows[-1] + (top << _BITS)
    while len(rows) > 1 and not rows[0].any():
        rows.pop(0)
        first += 1
    if not rows[0].any():  # all sums cancelled: the limbs of zero, as where nothing was added
        return 0, np.empty((0, len(rows[0])), np.int64)
    return first, np.stack(rows)
