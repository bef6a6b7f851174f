"""Helpers of the JSON codec's tests: one tensor's text to an array, or to an error."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import partial

import numpy as np

from service.codecs.json.codec import CODEC as JSON
from service.errors import DecodeError
from tests.service.codecs.samples import LIMITS, NAMES, Array, refusal


def decoded(text: str, dtype: str = "float64", name: str = "logits") -> Array:
    body = f'{{"dtype":"{dtype}","{name}":{text}}}'.encode()
    return JSON.decode(memoryview(body), NAMES, LIMITS).tensors[name]


def refused(text: str, dtype: str = "float64", name: str = "logits") -> DecodeError:
    return refusal(partial(decoded, text, dtype, name))


def nearest_bfloat16(value: float) -> int:
    """The bits of the bfloat16 nearest to ``value``, ties to even, in exact arithmetic."""
    unit = max(math.frexp(value)[1] - 8, -133)
    rounded = float(round(Fraction(value) / Fraction(2) ** unit) * Fraction(2) ** unit)
    return int(np.float32(math.copysign(rounded, value)).view(np.uint32)) >> 16
