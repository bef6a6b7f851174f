"""What the arithmetic calls a logit: the element itself, or softly capped, cap * tanh(x / cap).

Without a cap ``options.cap`` is None, a type of its own to Numba, and nothing of this is left in
the compiled kernel.
"""

from __future__ import annotations

import math
from typing import Any

from numba import types
from numba.extending import overload

from kernels.compiled import INLINED, inlined
from kernels.simd import (
    constant,
    element,
    exp2,
    keep_first,
    load,
    load_first,
    load_two,
    max_across,
    maximum,
    tanh,
)

LOG2E = math.log2(math.e)


def capped(x: Any, lanes: Any, cap: Any) -> Any:
    """``lanes`` of the array ``x`` as logits."""
    raise NotImplementedError("for compiled code only")


@overload(capped, jit_options=INLINED)
def _capped(x: Any, lanes: Any, cap: Any) -> Any:
    if cap == types.none:

        def uncapped(x: Any, lanes: Any, cap: Any) -> Any:
            return lanes

        return uncapped

    def softly(x: Any, lanes: Any, cap: Any) -> Any:
        return constant(x, cap) * tanh(lanes * constant(x, 1.0 / cap))

    return softly


def logit_at(x: Any, index: int, cap: Any) -> float:
    """One logit as a float64, rounded as ``capped`` rounds it."""
    raise NotImplementedError("for compiled code only")


@overload(logit_at, jit_options=INLINED)
def _logit_at(x: Any, index: Any, cap: Any) -> Any:
    if cap == types.none:

        def uncapped(x: Any, index: Any, cap: Any) -> Any:
            return element(x, index)

        return uncapped

    def softly(x: Any, index: Any, cap: Any) -> Any:
        return float(max_across(capped(x, constant(x, element(x, index)), cap)))

    return softly


def slope(x: Any, lanes: Any, cap: Any, value: Any) -> Any:
    """``value`` times the derivative of logits by ``lanes`` of the array ``x``."""
    raise NotImplementedError("for compiled code only")


@overload(slope, jit_options=INLINED)
def _slope(x: Any, lanes: Any, cap: Any, value: Any) -> Any:
    if cap == types.none:

        def uncapped(x: Any, lanes: Any, cap: Any, value: Any) -> Any:
            return value

        return uncapped

    def softly(x: Any, lanes: Any, cap: Any, value: Any) -> Any:
        # 1 - tanh(z)**2 by exp(-2 * abs(z)): near the cap the difference has no digits left.
        one, z = constant(x, 1.0), lanes * constant(x, 1.0 / cap)
        power = exp2(constant(x, -2.0 * LOG2E) * maximum(z, constant(x, 0.0) - z))
        half = constant(x, 2.0) / (one + power)
        return value * (power * (half * half))

    return softly


def read_first(x: Any, index: int, count: int, fill: Any, cap: Any) -> Any:
    """``count`` logits from ``index`` on, then ``fill``."""
    raise NotImplementedError("for compiled code only")


@overload(read_first, jit_options=INLINED)
def _read_first(x: Any, index: Any, count: Any, fill: Any, cap: Any) -> Any:
    if cap == types.none:

        def uncapped(x: Any, index: Any, count: Any, fill: Any, cap: Any) -> Any:
            return load_first(x, index, count, fill)

        return uncapped

    def softly(x: Any, index: Any, count: Any, fill: Any, cap: Any) -> Any:
        values = load_first(x, index, count, constant(x, 0.0))
        return keep_first(capped(x, values, cap), count, fill)

    return softly


@inlined
def read(x: Any, index: int, cap: Any) -> Any:
    """A register of logits from ``index`` on."""
    return capped(x, load(x, index), cap)


@inlined
def read_two(x: Any, index: int, cap: Any) -> Any:
    """Two registers of logits from ``index`` on, in the order of ``load_two``."""
    one, other = load_two(x, index)
    return capped(x, one, cap), capped(x, other, cap)
