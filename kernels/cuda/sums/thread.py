"""Sums of a thread over a position's classes in one read: started, added to, and merged.

With t = x * scale - shift, sum(2**t) needs no exact maximum: the shift, a whole number, follows
the largest x so far, and moves only when t would exceed ``LIMIT``; rescaling is exact. Each sum is
a pair, the sum and its rounding error (Knuth's two-sum), so that float32 is precise enough.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

from kernels.cuda.kinds import Kind, target
from kernels.dtypes import FLOAT64
from kernels.formula import LARGEST_SHIFT

# Half an ulp of t, times ln 2, is 1.7e-7 then.
LIMIT = 4.0
# Adding and subtracting it rounds to a whole number; abs(shift) is at most LARGEST_SHIFT.
_ROUND_FLOAT32, _ROUND_FLOAT64 = 1.5 * 2**23, 1.5 * 2**52
NO_CLASS = 2**62

device, exp2, fma = target.device, target.exp2, target.fma
element = target.element


class Sums(NamedTuple):
    """Sums over classes: ``total`` of 2**t; ``mass`` of q, the weight of each class in a smoothed
    loss; ``smooth`` of q * t; ``surprise`` of 2**t * t; ``shares`` of the class probabilities.

    ``least`` is the least class probability and 0; ``best`` the largest logit without the cap, of
    class ``best_at``; ``before`` the number of classes before the label.
    """

    shift: Any
    total: Any
    total_rest: Any
    mass: Any
    mass_rest: Any
    smooth: Any
    smooth_rest: Any
    surprise: Any
    surprise_rest: Any
    shares: Any
    least: Any
    best: Any
    best_at: Any
    before: Any


class Functions(NamedTuple):
    """Device functions: ``start()``, ``add(...)``, ``merge(sums, other)`` and ``logit(x, cap)``.

    ``add_vector`` is ``add`` for all values of a vector.
    """

    start: Any
    add: Any
    add_vector: Any
    merge: Any
    logit: Any


@device
def add_exactly(total: Any, rest: Any, value: Any) -> Any:
    """Add ``value`` to ``(total, rest)``; only the rest itself is rounded."""
    both = total + value
    back = both - total
    return both, rest + ((total - (both - back)) + (value - back))


@device
def pair(total: Any, rest: Any) -> float:
    """Sum as a float64; an infinite or NaN one has no rest."""
    wide = float(total)
    return wide + float(rest) if abs(wide) < math.inf else wide


@device
def beats(value: Any, at: int, other: Any, other_at: int) -> bool:
    """Return True if class ``at`` precedes ``other_at`` as the prediction: NaNs first, then the
    largest, then the first of equals.
    """
    if math.isnan(value) or math.isnan(other):
        return math.isnan(value) and (not math.isnan(other) or at < other_at)
    return value > other or (value == other and at < other_at)


@lru_cache
def functions(kind: Kind) -> Functions:
    """``Functions`` for ``kind``; sums that it does not need stay 0, and cost nothing."""
    logit = _logit(kind)
    add = _add(kind, logit, _raised(kind))
    halved = kind.dtype.size == 2 and (kind.smooth or kind.more)
    add_vector = _by_halves(add) if halved else add
    return Functions(_start(kind), add, add_vector, _merge(kind), logit)


def _logit(kind: Kind) -> Any:
    capped = kind.capped

    @device
    def logit(x: Any, cap: Any) -> Any:
        return cap * math.tanh(x / cap) if capped else x

    return logit


def _start(kind: Kind) -> Any:
    real = kind.real

    @device
    def start() -> Any:
        """Sums over no class."""
        zero = real(0.0)
        return Sums(
            real(-LARGEST_SHIFT), zero, zero, zero, zero, zero, zero, zero, zero, zero, zero,
            real(-math.inf), NO_CLASS, 0,
        )  # fmt: skip

    return start


def _moved(kind: Kind) -> Any:
    """Function: ``sums`` for a ``shift`` that is no smaller."""
    two_to = target.two_to_float64 if kind.dtype is FLOAT64 else target.two_to_float32
    smooth_wanted, more = kind.smooth, kind.more

    @device
    def moved(sums: Any, shift: Any) -> Any:
        move = sums.shift - shift
        factor = two_to(move)
        smooth, smooth_rest = sums.smooth, sums.smooth_rest
        surprise, surprise_rest = sums.surprise, sums.surprise_rest
        if smooth_wanted:
            smooth, smooth_rest = add_exactly(smooth, smooth_rest, move * sums.mass)
        if more and factor > 0:
            surprise, surprise_rest = add_exactly(surprise, surprise_rest, move * sums.total)
        return Sums(
            shift, sums.total * factor, sums.total_rest * factor, sums.mass, sums.mass_rest,
            smooth, smooth_rest, surprise * factor, surprise_rest * factor,
            sums.shares, sums.least, sums.best, sums.best_at, sums.before,
        )  # fmt: skip

    return moved


def _raised(kind: Kind) -> Any:
    """Function: ``sums`` with a shift for ``peak``, the largest exponent of 2 to be added."""
    real, moved = kind.real, _moved(kind)
    limit, largest = real(LIMIT), real(LARGEST_SHIFT)
    magic = real(_ROUND_FLOAT64 if kind.dtype is FLOAT64 else _ROUND_FLOAT32)

    @device
    def raised(sums: Any, peak: Any) -> Any:
        if not peak > sums.shift + limit:
            return sums
        return moved(sums, (min(peak, largest) + magic) - magic)

    return raised


def _add(kind: Kind, logit: Any, raised: Any) -> Any:
    real, more, smooth_wanted, soft_wanted = kind.real, kind.more, kind.smooth, kind.soft
    capped = kind.capped

    @device
    def add(
        sums: Any, values: Any, count: int, c: int, y: int, own: Any, options: Any, soft: Any,
        soft_at: int,
    ) -> Any:  # fmt: skip
        """Add the first ``count`` of ``values``, at least 1, of classes ``c`` on, to ``sums``.

        ``own`` is the logit of the label ``y``, and ranks compare logits, without the cap, which
        keeps their order, but may round two to one float32. Probabilities start at ``soft_at``.
        """
        zero, scale, cap = real(0.0), options.reals.scale, options.reals.cap
        largest = values[0]
        for k in range(1, len(values)):
            if k < count:
                largest = max(largest, values[k])
        sums = raised(sums, logit(largest, cap) * scale)
        minus = -sums.shift
        part, mass, smooth, surprise = zero, zero, zero, zero
        shares, least = sums.shares, sums.least
        best, best_at, before = sums.best, sums.best_at, sums.before
        for k in range(len(values)):
            if k < count:
                value = logit(values[k], cap)
                t = fma(value, scale, minus)
                power = exp2(t)
                part += power
                if more:
                    if power > zero:
                        surprise = fma(power, t, surprise)
                    raw = values[k]
                    # Only with a cap may all be -inf here.
                    if raw > best or (capped and best_at == NO_CLASS):
                        best, best_at = raw, c + k
                    if raw > own or (raw == own and c + k < y):
                        before += 1
                if smooth_wanted:
                    share = real(1.0)
                    if soft_wanted:
                        p = element(soft.data, soft_at + k * soft.class_stride)
                        shares += p
                        least = min(least, p)
                        share = fma(p, options.reals.keep, options.reals.spread)
                    q = share * options.lane_weight[c + k]
                    mass += q
                    if share != zero:
                        smooth = fma(q, t, smooth)
        total, total_rest = add_exactly(sums.total, sums.total_rest, part)
        masses, mass_rest = sums.mass, sums.mass_rest
        smooths, smooth_rest = sums.smooth, sums.smooth_rest
        surprises, surprise_rest = sums.surprise, sums.surprise_rest
        if smooth_wanted:
            masses, mass_rest = add_exactly(masses, mass_rest, mass)
            smooths, smooth_rest = add_exactly(smooths, smooth_rest, smooth)
        if more:
            surprises, surprise_rest = add_exactly(surprises, surprise_rest, surprise)
        return Sums(
            sums.shift, total, total_rest, masses, mass_rest, smooths, smooth_rest,
            surprises, surprise_rest, shares, least, best, best_at, before,
        )  # fmt: skip

    return add


def _by_halves(add: Any) -> Any:
    """``add``, four values at a time: the compiler does not unroll so long a loop eight times, and
    without that the tuple of values would be in local memory.
    """

    @device
    def add_halves(
        sums: Any, values: Any, count: int, c: int, y: int, own: Any, options: Any, soft: Any,
        soft_at: int,
    ) -> Any:  # fmt: skip
        sums = add(sums, values[:4], count, c, y, own, options, soft, soft_at)
        if count > 4:
            at = soft_at + 4 * soft.class_stride
            sums = add(sums, values[4:], count - 4, c + 4, y, own, options, soft, at)
        return sums

    return add_halves


def _merge(kind: Kind) -> Any:
    moved, more, smooth_wanted, soft_wanted = _moved(kind), kind.more, kind.smooth, kind.soft

    @device
    def merge(sums: Any, other: Any) -> Any:
        """Sums of both, in either order."""
        shift = max(sums.shift, other.shift)
        a, b = moved(sums, shift), moved(other, shift)
        total, total_rest = add_exactly(a.total, a.total_rest + b.total_rest, b.total)
        mass, mass_rest, smooth, smooth_rest = a.mass, a.mass_rest, a.smooth, a.smooth_rest
        surprise, surprise_rest = a.surprise, a.surprise_rest
        shares, least, best, best_at, before = a.shares, a.least, a.best, a.best_at, a.before
        if soft_wanted:
            shares, least = shares + b.shares, min(least, b.least)
        if smooth_wanted:
            mass, mass_rest = add_exactly(mass, mass_rest + b.mass_rest, b.mass)
            smooth, smooth_rest = add_exactly(smooth, smooth_rest + b.smooth_rest, b.smooth)
        if more:
            rests = surprise_rest + b.surprise_rest
            surprise, surprise_rest = add_exactly(surprise, rests, b.surprise)
            if beats(b.best, b.best_at, best, best_at):
                best, best_at = b.best, b.best_at
            before += b.before
        return Sums(
            shift, total, total_rest, mass, mass_rest, smooth, smooth_rest,
            surprise, surprise_rest, shares, least, best, best_at, before,
        )  # fmt: skip

    return merge
