"""What a codec is: the one interface that every body format has, and the errors it may raise."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from kernels import dtypes
from kernels.dtypes import DType
from service.codecs.naming import advice

# NumPy holds 64 dimensions; half of it leaves the kernels room for axes of their own.
MAX_RANK = 32

# An extent or an offset as a format's text spells it: nothing that takes long to convert.
NATURAL = re.compile(r"0|[1-9][0-9]{0,18}")

# The tensors that are as large as all the rest; a kernel reads them in order.
LOGITS = frozenset({"logits", "log_probs"})
# The tensors that may be Boolean: what counts and what does not.
WEIGHTS = frozenset({"weight", "sample_weight"})

# Bytes that a compressed body may inflate to for each of its own, and besides. Deflate makes up to
# 1032 of one: what takes long is to be sent as it is. Float32 logits compress by a tenth, class
# labels eightfold.
_INFLATION, _INFLATED = 16, 1 << 13
# JSON takes ten times as long as bytes that lie as they are used: so much text of a body below so
# many bytes takes a tenth of a second. Numbers of two decimals compress to a third.
_TEXT, _SHORT_BODY = 3_400_000, 1_000_000

# Extents of a tensor without elements may be so large in all, if any is 0: results have them.
_EMPTY = 1 << 16

_ADDRESSABLE = 2**63 - 1
_SHOWN = 60


class DecodeError(Exception):
    """The body is not what its media type says (HTTP 400).

    ``message`` says what was wrong and what would be right; ``where`` is the place in the body
    (``"logits[3]"``, ``"header"``, ``"byte 812"``), or ``None`` where it is the body as a whole.
    """

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where


class TakesLong(Exception):
    """The body is not decoded by the time that was set: ask another thread to do it."""


class TooLarge(DecodeError):
    """The tensors would take more than ``Limits.decoded_bytes`` once decoded (HTTP 413)."""


# These are made for every request, and a named tuple in a third of a frozen dataclass's time.
class Message(NamedTuple):
    """A decoded body.

    ``tensors`` holds arrays of the dtypes of ``kernels.dtypes`` (bfloat16 as its carrier; weights
    may be Boolean: see ``numbers``): views of the body wherever the format allows, of any strides
    and alignment, possibly read-only.
    ``options`` is everything that is not a tensor, unvalidated: JSON values, or the strings of a
    binary format's metadata. ``others`` names the tensors that were passed over.
    """

    tensors: dict[str, np.ndarray[Any, Any]]
    options: dict[str, Any]
    others: tuple[str, ...] = ()


class Limits(NamedTuple):
    """What one body may grow to.

    ``decoded_bytes`` is the most bytes that all tensors of one message may hold once decoded.
    What is not decoded by ``until``, as ``time.perf_counter`` counts, may raise ``TakesLong``.
    ``own``: it is a file of the user's, who may compress it as far as it goes; tensors of other
    names, and types, are passed over, as they are in files that nobody made for us.
    """

    decoded_bytes: int
    until: float = math.inf
    own: bool = False


class Encoded(NamedTuple):
    """An encoded answer that is more than one buffer of bytes in the format's media type.

    ``headers`` are sent along; ``media_type`` takes the place of the negotiated one, if not
    ``None``. The buffers of ``more`` follow ``content``, and are sent as they lie.
    """

    content: bytes | memoryview
    headers: Mapping[str, str] = MappingProxyType({})
    media_type: str | None = None
    more: Sequence[memoryview] = ()


Arrays: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
Answer: TypeAlias = bytes | memoryview | Encoded


def _at_most_copied(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


class Codec(NamedTuple):
    """One body format.

    ``media_types``: those it answers to; the first is the one it answers with.
    ``decode(body, names, limits)``: ``names`` are the names that are tensors; whatever the bytes,
    it raises ``DecodeError`` and nothing else.
    ``encode(arrays)``: named arrays to a body, or to one that says more of itself.
    ``first_tensor_at(prefix)``: from the first bytes of a body, the offset of its first tensor's
    data, so that the receive buffer can be placed to have it 64-byte aligned; ``None`` if those
    bytes do not say, or the format has no such place.

    ``typed``: options are JSON's values; otherwise they are texts.
    ``at_once(body)``: whether decoding takes no longer than about a millisecond, or gives up then.
    ``decoded_bytes(body)``: at most how many bytes decoding allocates besides the body.
    ``encoded_bytes(arrays)``: at most how many bytes encoding allocates besides the arrays.
    ``ready_at(prefix)``: from the first bytes of a body, where the logits begin, if they are the
    last tensor and ``decode`` can be given the body before they have come; else ``None``.
    ``growth``: of how many times a body's length a request holds memory at most, as a rule: of a
    binary one the body and outputs as large.
    """

    name: str
    media_types: tuple[str, ...]
    decode: Callable[[memoryview, frozenset[str], Limits], Message]
    encode: Callable[[Arrays], Answer]
    first_tensor_at: Callable[[bytes], int | None]
    typed: bool = False
    at_once: Callable[[memoryview], bool] = lambda body: False
    decoded_bytes: Callable[[memoryview], int] = lambda body: 0
    encoded_bytes: Callable[[Arrays], int] = _at_most_copied
    ready_at: Callable[[memoryview], int | None] = lambda prefix: None
    growth: int = 2


def shown(text: str) -> str:
    """``text`` from a client, quoted for an error message: ASCII, and of bounded length.

    Escaping everything else keeps lone surrogates, which UTF-8 cannot hold, out of the answer.
    """
    return ascii(text) if len(text) <= _SHOWN else ascii(text[:_SHOWN]) + "..."


def check_name(name: str, names: frozenset[str]) -> None:
    """Raise ``DecodeError`` unless ``name`` is one of the tensors that may be sent."""
    if name not in names:
        raise DecodeError(
            f"unknown tensor {shown(name)}: the tensors here are {', '.join(sorted(names))}"
            f"{advice(name, names)}",
            where=shown(name),
        )


def dtype_named(given: Any, known: Mapping[str, DType], boolean: str, name: Any) -> DType | None:
    """The dtype that a format calls ``given``, if the tensor ``name`` may be of it.

    All may be of those in ``known``, and weights of that which is called ``boolean``.
    """
    if not isinstance(given, str):
        return None
    if given == boolean and name in tuple(WEIGHTS):  # the name may be anything, and not hashable
        return dtypes.BOOL
    return known.get(given)


def tensor_view(
    data: memoryview,
    row: DType,
    shape: Sequence[int],
    limits: Limits,
    *,
    where: str,
    order: Literal["C", "F"] = "C",
) -> np.ndarray[Any, Any]:
    """All of ``data`` as an array of ``shape`` and of ``row``'s dtype, without a copy.

    ``shape`` holds non-negative integers of any size. Raises as ``check_size``.
    """
    check_size(len(data), row, shape, limits, where=where)
    return np.ndarray(tuple(shape), row.numpy, buffer=data, order=order)


def check_size(
    present: int, row: DType, shape: Sequence[int], limits: Limits, *, where: str
) -> None:
    """Raise ``DecodeError`` unless ``shape`` of ``row`` takes the bytes that are ``present``.

    ``TooLarge`` if it is out of proportion.
    """
    if len(shape) > MAX_RANK:
        raise DecodeError(
            f"{where}: {len(shape)} dimensions, but at most {MAX_RANK} are read", where=where
        )
    # Python integers: NumPy's product wraps, (2**32, 2**32) to zero.
    needed = math.prod(shape) * row.size
    if needed != present:
        size = f"{needed:,}" if needed <= _ADDRESSABLE else "more than 2**63"
        raise DecodeError(
            f"{where}: shape {list(shape)} of {row.name} takes {size} bytes, "
            f"but {present:,} are there",
            where=where,
        )
    if needed > limits.decoded_bytes:
        raise TooLarge(
            f"{where}: shape {list(shape)} of {row.name} is larger than the limit of "
            f"{limits.decoded_bytes:,} bytes",
            where=where,
        )
    # An empty tensor may claim any other extent for no bytes at all, and results are sized by it.
    if not needed and math.prod(extent or 1 for extent in shape) > _EMPTY:
        raise TooLarge(
            f"{where}: shape {list(shape)} of a tensor without elements is larger than the limit "
            f"of {_EMPTY:,} in all its other dimensions",
            where=where,
        )


def justified(length: int) -> int:
    """How many bytes a compressed body of ``length`` bytes may inflate to."""
    return _INFLATION * length + _INFLATED


def justified_text(length: int) -> int:
    """How many bytes of JSON a compressed body of ``length`` bytes may inflate to."""
    beyond = max(length - _SHORT_BODY, 0)
    return min(justified(length), _TEXT) + _INFLATION * beyond


def numbers(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``array``; where it is Boolean, a new one of 1 for true, which is any byte but 0, and 0."""
    return (array.view(np.uint8) != 0).view(np.uint8) if array.dtype == np.bool_ else array


def row_of(name: str, array: np.ndarray[Any, Any]) -> DType:
    """``array``'s row of the dtype table; ``TypeError`` (a bug of ours) if it has none."""
    row = dtypes.of(array)
    if row is None:
        raise TypeError(f"{name}: arrays of {array.dtype} are not sent")
    return row


def flat_bytes(array: np.ndarray[Any, Any]) -> memoryview:
    """``array``'s elements in C order as bytes; a copy only if they do not lie so already."""
    return np.asarray(array, order="C").reshape(-1).view(np.uint8).data
