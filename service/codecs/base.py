"""Interface of body formats, and functions that several share."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from kernels import dtypes
from kernels.dtypes import DType
from service.codecs.naming import advice
from service.errors import DecodeError, TooLarge

Array: TypeAlias = np.ndarray[Any, Any]
Arrays: TypeAlias = Mapping[str, Array]

# Dimensions of a tensor. NumPy holds 64; half of it leaves the kernels room for axes of their own.
MAX_RANK = 32

# Extent or offset in a format's text, in few enough digits to convert in no time.
NATURAL = re.compile(r"0|[1-9][0-9]{0,18}")

# Names of tensors: the largest one of a request, which kernels read in order; those that become
# float64; those that are integers; those that may be Boolean; and all.
LOGITS = frozenset({"logits", "log_probs"})
WEIGHTS = frozenset({"weight", "pos_weight", "sample_weight"})
INTEGERS = frozenset({"mask", "segments", "chosen", "target_classes"})
BOOLEAN = WEIGHTS | {"mask"}
TARGETS = frozenset({"target_logits", "target_log_probs", "target_top_log_probs"})
# Those that kernels read in order, so that the last one of a body may still be coming.
IN_ORDER = LOGITS | {"target_logits", "target_log_probs"}
TENSORS = LOGITS | WEIGHTS | INTEGERS | TARGETS | {"labels"}

# Bytes that a compressed body may inflate to for each of its own, and besides. Deflate makes up to
# 1032 of one: such a body costs more time than its length. Float32 logits compress by a tenth,
# class labels eightfold.
_INFLATION, _INFLATED = 16, 1 << 13
# Bytes of JSON that a compressed body of up to a million bytes may inflate to: a tenth of a second.
# JSON takes ten times as long to read as binary tensors; numbers of two decimals compress to a
# third.
_TEXT, _SHORT_BODY = 3_400_000, 1_000_000

# Product of the other extents of a tensor with an extent of 0, since results have them too.
_EMPTY = 1 << 16

_ADDRESSABLE = 2**63 - 1
_SHOWN = 60  # characters of a client's text in an error


class TakesLong(Exception):
    """Decoding that has not ended by ``Limits.until``: repeat it in another thread."""


# Named tuples here and below: made for every request, in a third of a frozen dataclass's time.
class Message(NamedTuple):
    """Content of a decoded body.

    ``tensors``: arrays of the dtypes of ``kernels.dtypes`` (bfloat16 as its carrier; some may be
    Boolean, see ``numbers``), of any strides and alignment, possibly read-only: views of the body
    wherever the format allows.
    ``options``: everything that is not a tensor, not validated: JSON values, or the strings of a
    binary format's metadata.
    ``others``: names of tensors that were passed over.
    """

    tensors: dict[str, Array]
    options: dict[str, Any]
    others: tuple[str, ...] = ()


class Limits(NamedTuple):
    """Limits of decoding one body.

    ``decoded_bytes``: most bytes of all tensors once decoded.
    ``until``: time, as of ``time.perf_counter``, after which ``TakesLong`` may be raised.
    ``own``: the body is the user's own file: any compression is allowed, and tensors of other names
    and types are passed over.
    ``boolean``: names of tensors that may be Boolean, where a file has names of its own.
    """

    decoded_bytes: int
    until: float = math.inf
    own: bool = False
    boolean: frozenset[str] = BOOLEAN


class Encoded(NamedTuple):
    """Answer in several buffers, or with headers or a media type of its own.

    ``headers`` are sent along; ``media_type`` replaces the negotiated one unless it is ``None``.
    The buffers of ``more`` follow ``content`` without being copied.
    """

    content: bytes | memoryview
    headers: Mapping[str, str] = MappingProxyType({})
    media_type: str | None = None
    more: Sequence[memoryview] = ()


Answer: TypeAlias = bytes | memoryview | Encoded


class Codec(ABC):
    """Body format: bytes to named arrays and back.

    Only ``decode`` may change a codec's state: that of V2 is made for one request, and keeps what
    the body asks of the answer.
    """

    name: str
    # The first one is the answer's.
    media_types: tuple[str, ...]
    # Options are JSON values, and the body is text; else options are strings.
    typed: bool = False
    # Memory that a request holds, as a multiple of its body's length: of a binary one the body, and
    # outputs as large.
    growth: int = 2
    # Request field that chooses the answer's format, and how to choose a binary one.
    answer_field: str = "accept"
    binary_advice: str = "name a binary format in Accept"

    @abstractmethod
    def decode(self, body: memoryview, names: frozenset[str], limits: Limits) -> Message:
        """Decode ``body``, in which ``names`` are the names of tensors.

        Raises ``DecodeError``, ``TooLarge`` and ``TakesLong``, whatever the bytes.
        """

    @abstractmethod
    def encode(self, arrays: Arrays) -> Answer:
        """Encode named arrays of the dtypes of ``kernels.dtypes``, of any strides."""

    def aligned_at(self, prefix: bytes) -> int | None:
        """Return the offset of the data that is to lie 64-byte aligned: most of the body's.

        ``None`` if ``prefix``, the first bytes of a body, does not say, or the format has none.
        """
        return None

    def ready_at(self, prefix: memoryview) -> int | None:
        """Return the offset of the last tensor if all that precedes it is known from ``prefix``.

        Then it is one of ``IN_ORDER``, the logits as a rule, and ``decode`` takes the body before
        it has arrived. Raises ``DecodeError`` as ``decode``, so that what is wrong before the
        tensors is not answered after them.
        """
        return None

    def at_once(self, body: memoryview) -> bool:
        """Return whether ``decode`` takes up to about a millisecond, or raises ``TakesLong``."""
        return False

    def decoded_bytes(self, body: memoryview) -> int:
        """Return at most how many bytes ``decode`` allocates besides ``body``."""
        return 0

    def encoded_bytes(self, arrays: Arrays) -> int:
        """Return at most how many bytes ``encode`` allocates besides ``arrays``."""
        return sum(array.nbytes for array in arrays.values())

    def text_numbers(self, arrays: Arrays) -> int:
        """Return how many numbers ``encode`` writes as text."""
        return 0


def shown(text: str) -> str:
    """Quote a client's ``text`` for an error message: ASCII, of bounded length.

    All but ASCII is escaped, lone surrogates included, which UTF-8 cannot hold.
    """
    return ascii(text) if len(text) <= _SHOWN else ascii(text[:_SHOWN]) + "..."


def check_name(name: str, names: frozenset[str]) -> None:
    """Raise ``DecodeError`` unless ``name`` is one of the tensors' ``names``."""
    if name not in names:
        raise DecodeError(
            f"unknown tensor {shown(name)}: the tensors here are {', '.join(sorted(names))}"
            f"{advice(name, names)}",
            where=shown(name),
        )


def dtype_named(
    given: Any,
    known: Mapping[str, DType],
    boolean: str,
    name: Any,
    may_be: frozenset[str] = BOOLEAN,
) -> DType | None:
    """Return the dtype that a format calls ``given``, or ``None`` if tensor ``name`` has none such.

    All tensors may be of the ``known`` dtypes, those of ``may_be`` also of that called ``boolean``.
    """
    if not isinstance(given, str):
        return None
    if given == boolean and name in tuple(may_be):  # the name may be anything, and not hashable
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
) -> Array:
    """View all of ``data`` as an array of ``shape`` and of ``row``'s dtype.

    ``shape`` holds non-negative integers of any size. Raises as ``check_size``.
    """
    check_size(len(data), row, shape, limits, where=where)
    return np.ndarray(tuple(shape), row.numpy, buffer=data, order=order)


def check_size(
    present: int, row: DType, shape: Sequence[int], limits: Limits, *, where: str
) -> None:
    """Raise ``DecodeError`` unless ``shape`` of ``row`` takes exactly ``present`` bytes.

    Raises ``TooLarge`` above ``limits``, or for vast extents of a tensor without elements.
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
    # An empty tensor takes no bytes, whatever its other extents; results are sized by them.
    if not needed and math.prod(extent or 1 for extent in shape) > _EMPTY:
        raise TooLarge(
            f"{where}: shape {list(shape)} of a tensor without elements is larger than the limit "
            f"of {_EMPTY:,} in all its other dimensions",
            where=where,
        )


def justified(length: int) -> int:
    """Return to how many bytes a compressed body of ``length`` bytes may inflate."""
    return _INFLATION * length + _INFLATED


def justified_text(length: int) -> int:
    """Return to how many bytes of JSON a compressed body of ``length`` bytes may inflate."""
    beyond = max(length - _SHORT_BODY, 0)
    return min(justified(length), _TEXT) + _INFLATION * beyond


def numbers(array: Array) -> Array:
    """Return ``array``, a Boolean one as new uint8 zeros and ones (any byte but 0 is true)."""
    return (array.view(np.uint8) != 0).view(np.uint8) if array.dtype == np.bool_ else array


def row_of(name: str, array: Array) -> DType:
    """Return ``array``'s row of the dtype table; raises ``TypeError`` (a bug) if it has none."""
    row = dtypes.of(array)
    if row is None:
        raise TypeError(f"{name}: arrays of {array.dtype} are not sent")
    return row


def flat_bytes(array: Array) -> memoryview:
    """Return ``array``'s bytes in C order, without a copy if they lie so already."""
    return np.asarray(array, order="C").reshape(-1).view(np.uint8).data
