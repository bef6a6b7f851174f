"""Helpers of the binary formats' tests: arrays of any bits, and their comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from kernels import dtypes
from service.codecs.base import Limits
from service.errors import DecodeError

Array = np.ndarray[Any, Any]

NAMES = frozenset({"labels", "logits", "weight"})
LIMITS = Limits(decoded_bytes=1 << 20)

# Every rank up to 5, and emptiness in each place.
SHAPES: tuple[tuple[int, ...], ...] = (
    (),
    (1,),
    (7,),
    (2, 3),
    (3, 1, 4),
    (2, 3, 2, 2),
    (2, 1, 3, 1, 2),
    (0,),
    (0, 3),
    (3, 0),
    (2, 0, 3),
)

every_dtype = pytest.mark.parametrize("row", dtypes.ALL, ids=lambda row: row.name)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def sample(row: dtypes.DType, shape: Sequence[int]) -> Array:
    """Random bits, so that NaNs, denormals and the largest integers are among them."""
    bits = np.random.default_rng(len(shape)).bytes(math.prod(shape) * row.size)
    return np.ndarray(tuple(shape), row.numpy, buffer=bits)


def as_numpy_saves(array: Array) -> Array:
    """``array`` with the dtype that numpy.save gives a name, for the bfloat16 carrier."""
    return array.view(ml_dtypes.bfloat16) if array.dtype == dtypes.BFLOAT16.numpy else array


def same(a: Array, b: Array) -> bool:
    """Equal to the bit, in shape and in dtype."""
    return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


def refusal(decode: Callable[[], object]) -> DecodeError:
    """The error that ``decode`` raises, proved fit to be sent to a client."""
    with pytest.raises(DecodeError) as caught:
        decode()
    error = caught.value
    for text in (error.message, error.where or "byte 0"):
        assert text.isascii()
        assert text.isprintable()
        assert 0 < len(text) < 2000
    return error
