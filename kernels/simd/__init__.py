"""Registers of numbers for Numba kernels: lanes, memory, elementary functions."""

from kernels.simd.elementary import exp2, log2, nearest
from kernels.simd.lanes import (
    fma,
    max_across,
    maximum,
    minimum,
    narrow,
    pair_sums,
    splat,
    sum_across,
    where_equal,
    where_greater,
    widen_high,
    widen_low,
)
from kernels.simd.memory import constant, element, load, load_first, prefetch, store, store_first, width

__all__ = [
    "constant",
    "element",
    "exp2",
    "fma",
    "load",
    "load_first",
    "log2",
    "max_across",
    "maximum",
    "minimum",
    "narrow",
    "nearest",
    "pair_sums",
    "prefetch",
    "splat",
    "store",
    "store_first",
    "sum_across",
    "where_equal",
    "where_greater",
    "widen_high",
    "widen_low",
    "width",
]
