"""Logits as registers: array elements as they are, or softly capped, cap * tanh(x / cap).

``cap`` is None where there is no cap: Numba removes the branches that test for it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from kernels.compiled import inlined
from kernels.formula import LOG2E, capped_softly, slope_of_cap
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


class Scale(NamedTuple):
    """Factors of a tensor's logits: to nats, and to exponents of 2; and their soft cap."""

    unit: float
    scale: float
    cap: Any


@inlined
def capped(x: Any, lanes: Any, cap: Any) -> Any:
    """``lanes`` of the array ``x`` as logits."""
    if cap is None:
        return lanes
    return constant(x, cap) * tanh(lanes * constant(x, 1.0 / cap))


@inlined
def read(x: Any, index: int, cap: Any) -> Any:
    """A register of logits from ``index`` on."""
    return capped(x, load(x, index), cap)


@inlined
def read_two(x: Any, index: int, cap: Any) -> Any:
    """Two registers of logits from ``index`` on, in the order of ``load_two``."""
    one, other = load_two(x, index)
    return capped(x, one, cap), capped(x, other, cap)


@inlined
def read_first(x: Any, index: int, count: int, fill: Any, cap: Any) -> Any:
    """``count`` logits from ``index`` on, then ``fill``."""
    if cap is None:
        return load_first(x, index, count, fill)
    values = load_first(x, index, count, constant(x, 0.0))
    return keep_first(capped(x, values, cap), count, fill)


@inlined
def logit_at(x: Any, index: int, cap: Any) -> float:
    """One logit as a float64, rounded as ``capped`` rounds it."""
    if cap is None:
        return element(x, index)
    return float(max_across(capped(x, constant(x, element(x, index)), cap)))


@inlined
def slope(x: Any, lanes: Any, cap: Any, value: Any) -> Any:
    """``value`` times the derivative of logits by ``lanes`` of the array ``x``."""
    if cap is None:
        return value
    # 1 - tanh(z)**2 by exp(-2 * abs(z)): near the cap the difference has no digits left.
    one, z = constant(x, 1.0), lanes * constant(x, 1.0 / cap)
    power = exp2(constant(x, -2.0 * LOG2E) * maximum(z, constant(x, 0.0) - z))
    half = constant(x, 2.0) / (one + power)
    return value * (power * (half * half))


@inlined
def exact(x: Any, index: int, cap: Any) -> float:
    """One logit in float64."""
    if cap is None:
        return element(x, index)
    return capped_softly(element(x, index), cap)


@inlined
def exact_slope(raw: float, cap: Any) -> float:
    """Derivative of ``exact`` by the element ``raw``."""
    if cap is None:
        return 1.0
    return slope_of_cap(raw, cap)
