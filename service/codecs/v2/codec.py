"""V2 body format: one inference request and its answer, as JSON with or without binary tensors.

``request`` describes the request's JSON, ``answer`` the answer's. Without a request's headers its
body cannot be read, nor an answer written without its request: each request has a codec of its own.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from service.codecs import compression
from service.codecs.base import (
    IN_ORDER,
    Array,
    Arrays,
    Codec,
    Encoded,
    Limits,
    Message,
    flat_bytes,
    justified,
    justified_text,
    tensor_view,
)
from service.codecs.json.codec import CODEC as JSON
from service.codecs.json.members import VALUE_LIMIT
from service.codecs.json.tensor import commas
from service.codecs.v2 import answer
from service.codecs.v2.answer import BINARY, HEADER_LENGTH
from service.codecs.v2.header import Header, header_of
from service.codecs.v2.members import has_elements
from service.codecs.v2.model import Model, SharedMemory
from service.codecs.v2.request import InferRequest, Input, Region
from service.errors import DecodeError
from service.regimes import AT_ONCE_COPIED_BYTES

# Error for null, as KServe's client sends NaN and infinities, and that client's way around it.
_NULL, _INSTEAD = "'null' is", "; or as binary data, which KServe's client sends unless told not to"
_BINARY = re.compile(rb'"binary_data_size"')
_REGION = b'"shared_memory_region"'
# Bytes that a number in JSON takes at most: two arrays of eight, since its datatype may follow it.
_NUMBER = 2 * 8


@dataclass(eq=False)
class Inference(Codec):
    """Codec of one request: what its headers say and, once decoded, what it asks for.

    ``header_length``: bytes of JSON before the binary tensors; ``None`` if all is JSON.
    ``coding``, ``reply_coding``: content codings of the body and of the answer, if any.
    """

    name = "v2"
    media_types = (BINARY,)
    typed = True
    answer_field = "outputs"
    binary_advice = "ask for its outputs with binary_data"

    model: Model
    header_length: int | None
    coding: str | None
    reply_coding: str | None
    memory: SharedMemory
    names: frozenset[str]
    limits: Limits
    _request: InferRequest | None = field(default=None, init=False)
    _targets: dict[str, Array] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        # A compressed body may grow to anything.
        self.growth = 2 if self.coding is None and self.header_length is not None else 4

    def decode(self, body: memoryview, names: frozenset[str], limits: Limits) -> Message:
        """Decode the inputs: views of ``body`` if binary, of shared memory if floating.

        Options are JSON values. Raises ``DecodeError``, ``TooLarge``, ``TakesLong``, and what
        ``memory`` raises.
        """
        if self.coding is not None:
            size = self._most_inflated(body, self.coding)
            body = compression.inflate(body, self.coding, size, limits.until)
        header = self._header(body, limits)
        request, at = header.request, self._json_length(body)
        present, needed = len(body) - at, header.binary_size
        if present != needed:
            raise DecodeError(
                f"{present:,} bytes follow the JSON, but its inputs' binary_data_size make "
                f"{needed:,}{self._hint()}",
                where=f"byte {at}",
            )
        tensors: dict[str, Array] = {}
        for entry in request.inputs:
            end = at + entry.source if isinstance(entry.source, int) else at
            data = self._data(entry, body[at:end])
            tensors[entry.name] = tensor_view(
                data, entry.row, entry.shape, limits, where=entry.name
            )
            at = end
        if header.written:
            self._targets = {name: self.memory.view(at) for name, at in header.written.items()}
            self.memory.check_apart(request.read, header.written)
        self._request = header.asked
        return Message(tensors, {**header.options})

    def encode(self, arrays: Arrays) -> Encoded:
        """Write the answer; raises what ``memory`` raises if any of it was lost meanwhile."""
        model = self.model
        written = answer.encode(model.name, model.version, self._asked, arrays, self._targets)
        self.memory.check()
        return answer.compressed(written, self.reply_coding)

    def aligned_at(self, prefix: bytes | memoryview) -> int | None:
        with suppress(DecodeError):  # ``ready_at`` and ``decode`` say what is wrong
            return (self._starts(prefix) or {}).get(self.model.largest)
        return None

    def ready_at(self, prefix: memoryview) -> int | None:
        starts = self._starts(prefix)
        if not starts or (last := next(reversed(starts))) not in IN_ORDER:
            return None
        return starts[last]

    def at_once(self, body: memoryview) -> bool:
        """Return whether decoding is quick: never if compressed, by up to 1000 times.

        Raises ``DecodeError`` as ``decode``.
        """
        if self.coding is not None or (length := self._json_length(body)) > VALUE_LIMIT:
            return False
        raw = bytes(body[:length])
        if has_elements(raw) and _REGION not in raw and b"\\" not in raw:
            return (raw.count(b",") + 1) * _NUMBER <= AT_ONCE_COPIED_BYTES
        return self._header(body, self.limits).held <= AT_ONCE_COPIED_BYTES

    def decoded_bytes(self, body: memoryview) -> int:
        length = self.header_length
        if self.coding is not None:
            most = self._most_inflated(body, self.coding)
            if length is not None and length <= VALUE_LIMIT:
                return most + self._coded_header(body, self.coding, length).held
            size, count = compression.measured(body, self.coding, most, self.limits.until)
            return size + (count + 1) * _NUMBER
        length = self._json_length(body)
        if length <= VALUE_LIMIT:
            return self._header(body, self.limits).held
        # Labels in shared memory, which are copied, stand beside so much text.
        return (commas(np.frombuffer(body[:length], np.uint8)) + 1) * _NUMBER

    def encoded_bytes(self, arrays: Arrays) -> int:
        """Return at most how many bytes ``encode`` allocates or writes elsewhere."""
        wanted = {wanted.name: wanted for wanted in self._asked.wanted(arrays)}
        moved = sum(
            array.nbytes
            for name, array in arrays.items()
            if self.reply_coding or wanted[name].region or not array.flags.c_contiguous
        )
        text = {name: array for name, array in arrays.items() if wanted[name].text}
        return JSON.encoded_bytes(text) + moved

    def text_numbers(self, arrays: Arrays) -> int:
        wanted = self._asked.wanted(arrays)
        return sum(arrays[output.name].size for output in wanted if output.text)

    @property
    def _asked(self) -> InferRequest:
        assert self._request is not None
        return self._request

    def _json_length(self, body: memoryview) -> int:
        length = len(body) if self.header_length is None else self.header_length
        if length > len(body):
            raise DecodeError(
                f"{HEADER_LENGTH} is {length:,}, but the body has {len(body):,} bytes",
                where="inference-header-content-length",
            )
        return length

    def _most_inflated(self, body: memoryview, coding: str) -> int:
        """Return how many bytes ``body`` may inflate to: as many as short JSON before it tells of.

        Where there is none, as many as the body's length justifies. Raises ``TooLarge``.
        """
        length = self.header_length
        most = min(justified(len(body)), self.limits.decoded_bytes)
        text = min(justified_text(len(body)), most)
        if length is None:
            return text
        if length > text:
            raise compression.too_large(f"{length:,} of JSON", len(body), coding, text)
        if length > VALUE_LIMIT:
            return most
        size = length + self._coded_header(body, coding, length).binary_size
        if size > most:
            raise compression.too_large(f"{size:,}", len(body), coding, most)
        return size

    def _coded_header(self, body: memoryview, coding: str, length: int) -> Header:
        begun = compression.beginning(body, coding, length, self.limits.until)
        return self._header(memoryview(begun), self.limits)

    def _header(self, body: memoryview, limits: Limits) -> Header:
        text = body[: self._json_length(body)]
        try:
            return header_of(text, self.model, self.names, limits)
        except DecodeError as error:
            # Not JSON, or not only; up to a cache line of space may follow it.
            ends = bytes(text[-64:]).rstrip().endswith(b"}")
            broken = not ends or (error.where or "").startswith("byte")
            if broken and (self.header_length is not None or _BINARY.search(text[:VALUE_LIMIT])):
                error.message += self._hint()
            elif _NULL in error.message:
                error.message += _INSTEAD
            raise

    def _hint(self) -> str:
        if self.header_length is None:
            return f"; binary tensors need the header {HEADER_LENGTH}"
        return f"; {HEADER_LENGTH} says that the JSON takes {self.header_length:,} bytes"

    def _starts(self, prefix: bytes | memoryview) -> dict[str, int] | None:
        """Return where each binary tensor starts, in order; ``None`` if ``prefix`` does not say.

        Raises ``DecodeError``.
        """
        length = self.header_length
        if self.coding is not None or length is None or length > len(prefix):
            return None
        starts = self._header(memoryview(prefix), self.limits).starts
        return {name: length + start for name, start in starts.items()}

    def _data(self, entry: Input, binary: memoryview) -> memoryview:
        if isinstance(entry.source, int):
            return binary
        if isinstance(entry.source, Region):
            view = self.memory.view(entry.source)
            # The client may write there at any time: labels that are proved to be classes must be
            # those that the kernels use. Floats decide over no address.
            return view.copy().data if entry.row.numpy.kind in "iub" else view.data
        return flat_bytes(entry.source)
