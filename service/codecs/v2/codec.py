"""The V2 body format: one inference request and its answer, as JSON with or without binary tensors.

It is described where it is read (``infer_request``) and where it is written (``infer_answer``).
Unlike that of ``CODECS``, a body cannot be told without its request's headers, nor an answer
without its request: so each request has a codec of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from service.codecs import compression
from service.codecs.base import (
    DecodeError,
    Encoded,
    Limits,
    Message,
    flat_bytes,
    justified,
    justified_text,
    shown,
    tensor_view,
)
from service.codecs.json import codec as json_codec
from service.codecs.json.members import VALUE_LIMIT
from service.codecs.v2 import answer as v2_answer
from service.codecs.v2.model import Model, SharedMemory
from service.codecs.v2.request import InferRequest, Input, Region, parse
from service.regimes import AT_ONCE_COPIED_BYTES

_Array: TypeAlias = np.ndarray[Any, Any]

# What KServe's client makes of NaN and infinities, and has a way around.
_NULL, _INSTEAD = "'null' is", "; or as binary data, which KServe's client sends unless told not to"
_BINARY = re.compile(rb'"binary_data_size"')
_OUTPUTS = "outputs"  # the option that the request's list of outputs becomes

# Bytes that a number in JSON takes at most, twice if its datatype comes behind its data.
_NUMBER = 2 * 8
_SHORT = 1 << 12  # bytes of JSON that are worth remembering
# Bytes that are worth compressing, and that are not sent sooner as they are.
_SHORTEST_ANSWER, _LONGEST_ANSWER = 1 << 10, 1 << 22


class Understood(NamedTuple):
    """What follows from a request's JSON and its model; nobody changes any of it.

    ``starts``: where each binary tensor starts behind the JSON, in their order. ``options``: the
    model's. ``held``: bytes that its inputs take besides the body.
    """

    request: InferRequest
    starts: Mapping[str, int]
    options: Mapping[str, Any]
    held: int


@dataclass(slots=True)
class Inference:
    """One request: what its headers say of it and, once it is decoded, what it asks for.

    ``header_length``: bytes of JSON before the binary tensors; None where all is JSON.
    ``coding``, ``reply_coding``: the content codings of the body and of the answer, if any.
    ``most_numbers``: how many the JSON of the answer may hold.
    """

    model: Model
    header_length: int | None
    coding: str | None
    reply_coding: str | None
    memory: SharedMemory
    most_numbers: int
    names: frozenset[str]
    limits: Limits
    _understood: Understood | None = field(default=None, init=False)
    _size: int = field(default=0, init=False)
    _targets: dict[str, _Array] = field(default_factory=dict, init=False)

    @property
    def growth(self) -> int:
        """As ``Codec.growth``; what is compressed may grow to anything."""
        return 2 if self.coding is None and self.header_length is not None else 4

    def at_once(self, body: memoryview) -> bool:
        """Whether decoding is quick: not if compressed, which may be 1000 times what it seems."""
        short = self.coding is None and self._json_length(body) <= VALUE_LIMIT
        return short and self.decoded_bytes(body) <= AT_ONCE_COPIED_BYTES

    def decoded_bytes(self, body: memoryview) -> int:
        """At most how many bytes ``decode`` allocates for ``body``."""
        if self.coding is not None:
            return self._inflated_bytes(body, self.coding)
        length = self._json_length(body)
        if length <= VALUE_LIMIT:
            return self._read(body, self.limits).held
        # At most two arrays of eight bytes an element, as a datatype may come behind its data;
        # labels in shared memory are beside so much text.
        return json_codec.decoded_bytes(body[:length]) * 2

    def encoded_bytes(self, arrays: Mapping[str, _Array]) -> int:
        """At most how many bytes ``encode`` allocates for ``arrays``, or writes elsewhere."""
        assert self._understood is not None
        wanted = {wanted.name: wanted for wanted in self._understood.request.wanted(arrays)}
        text = {
            name: array
            for name, array in arrays.items()
            if not (wanted[name].binary or wanted[name].region)
        }
        moved = sum(
            array.nbytes
            for name, array in arrays.items()
            if self.reply_coding or wanted[name].region or not array.flags.c_contiguous
        )
        return json_codec.encoded_bytes(text) + moved

    def first_tensor_at(self, prefix: bytes | memoryview) -> int | None:
        """Where the largest tensor starts, if it is binary and ``prefix`` holds all the JSON."""
        starts = self._starts(prefix)
        return None if starts is None else starts.get(self.model.largest)

    def ready_at(self, prefix: memoryview) -> int | None:
        """Where the largest tensor starts, if no other follows it."""
        starts = self._starts(prefix)
        if not starts or next(reversed(starts)) != self.model.largest:
            return None
        return starts[self.model.largest]

    def decode(self, body: memoryview, names: frozenset[str], limits: Limits) -> Message:
        """The inputs: views of ``body`` where binary, of shared memory where floating.

        A compressed ``body`` must have been given to ``decoded_bytes`` before. Options are JSON's
        values. Raises ``DecodeError``, and what ``memory`` raises.
        """
        if self.coding is not None:
            body = compression.inflate(body, self.coding, self._size, limits.until)
        understood = self._read(body, limits)
        request, at = understood.request, self._json_length(body)
        present, needed = len(body) - at, request.binary_size
        if present != needed:
            raise DecodeError(
                f"{present:,} bytes follow the JSON, but its inputs' binary_data_size make "
                f"{needed:,}{self._hint()}",
                where=f"byte {at}",
            )
        tensors: dict[str, _Array] = {}
        for entry in request.inputs:
            end = at + entry.source if isinstance(entry.source, int) else at
            data = self._data(entry, body[at:end])
            tensors[entry.name] = tensor_view(
                data, entry.row, entry.shape, limits, where=entry.name
            )
            at = end
        self._targets = {name: self.memory.view(at) for name, at in request.written.items()}
        if self._targets:
            self.memory.check_apart(request.read, request.written)
        if understood.held:
            # Their elements are the caller's from here on.
            self._understood = understood._replace(request=request._replace(inputs=()))
        return Message(tensors, {**understood.options})

    def encode(self, arrays: Mapping[str, _Array]) -> Encoded:
        """The answer; raises what ``memory`` raises if any of it was lost meanwhile."""
        assert self._understood is not None
        model, request = self.model, self._understood.request
        answer = v2_answer.encode(
            model.name, model.version, request, arrays, self._targets, self.most_numbers
        )
        self.memory.check()
        parts = (answer.content, *answer.more)
        worth_it = _SHORTEST_ANSWER <= sum(map(len, parts)) <= _LONGEST_ANSWER
        if self.reply_coding is None or not worth_it:
            return answer
        content = compression.deflate(parts, self.reply_coding)
        headers = {**answer.headers, "Content-Encoding": self.reply_coding}
        return Encoded(content, headers, answer.media_type)

    def _json_length(self, body: memoryview) -> int:
        length = len(body) if self.header_length is None else self.header_length
        if length > len(body):
            raise DecodeError(
                f"{v2_answer.HEADER_LENGTH} is {length:,}, but the body has {len(body):,} bytes",
                where="inference-header-content-length",
            )
        return length

    def _inflated_bytes(self, body: memoryview, coding: str) -> int:
        """At most how many bytes ``body`` takes without its coding, and its elements in JSON.

        Where short JSON comes first, that says how much follows it: no more than it is inflated.
        """
        length = self.header_length
        most = min(justified(len(body)), self.limits.decoded_bytes)
        text = min(justified_text(len(body)), most)
        if length is not None and length > text:
            raise compression.too_large(f"{length:,} of JSON", len(body), coding, text)
        if length is None or length > VALUE_LIMIT:
            limit = text if length is None else most
            self._size, commas = compression.measured(body, coding, limit, self.limits.until)
            return self._size + (commas + 1) * _NUMBER
        head = compression.beginning(body, coding, length, self.limits.until)
        understood = self._read(memoryview(head), self.limits)
        self._size = length + understood.request.binary_size
        if self._size > most:
            raise compression.too_large(f"{self._size:,}", len(body), coding, most)
        return self._size + understood.held

    def _read(self, body: memoryview, limits: Limits) -> Understood:
        """What the JSON of ``body`` says: read once, though asked for before ``decode`` too."""
        if self._understood is None:
            text = body[: self._json_length(body)]
            raw = bytes(text[: _SHORT + 1])
            try:
                if len(raw) > _SHORT or b'"data"' in raw:
                    self._understood = _understand(text, self.model, self.names, limits)
                else:
                    self._understood = _known(raw, self.model, self.names, self.limits)
            except DecodeError as error:
                # No JSON, or not only; behind it there may be a cache line of space.
                ends = bytes(text[-64:]).rstrip().endswith(b"}")
                broken = not ends or (error.where or "").startswith("byte")
                if broken and (
                    self.header_length is not None or _BINARY.search(text[:VALUE_LIMIT])
                ):
                    error.message += self._hint()
                elif _NULL in error.message:
                    error.message += _INSTEAD
                raise
        return self._understood

    def _hint(self) -> str:
        """What to add to an error that may come of a wrong header, or of none."""
        header, length = v2_answer.HEADER_LENGTH, self.header_length
        if length is None:
            return f"; binary tensors need the header {header}"
        return f"; {header} says that the JSON takes {length:,} bytes"

    def _starts(self, prefix: bytes | memoryview) -> dict[str, int] | None:
        """Where each binary tensor starts, in their order; None if ``prefix`` does not say."""
        length = self.header_length
        if self.coding is not None or length is None or length > len(prefix):
            return None
        # What is wrong with it, ``decode`` says: here it only lies where it lies.
        with suppress(DecodeError):
            starts = self._read(memoryview(prefix), self.limits).starts
            return {name: length + start for name, start in starts.items()}
        return {}

    def _data(self, entry: Input, binary: memoryview) -> memoryview:
        if isinstance(entry.source, int):
            return binary
        if isinstance(entry.source, Region):
            view = self.memory.view(entry.source)
            # The client may write there at any time: labels that are proved to be classes must be
            # those that the kernels use. Floats decide over no address.
            return view.copy().data if entry.row.numpy.kind in "iub" else view.data
        return flat_bytes(entry.source)


def _understand(
    text: memoryview, model: Model, names: frozenset[str], limits: Limits
) -> Understood:
    request = parse(text, names, limits)
    at, starts = 0, {}
    for entry in request.inputs:
        if isinstance(entry.source, int):
            starts[entry.name] = at
            at += entry.source
    return Understood(request, starts, _options(request, model), sum(map(_held, request.inputs)))


# Of binary tensors, clients send the same JSON again and again.
@lru_cache(256)
def _known(raw: bytes, model: Model, names: frozenset[str], limits: Limits) -> Understood:
    return _understand(memoryview(raw), model, names, limits)


def _options(request: InferRequest, model: Model) -> dict[str, Any]:
    options = dict(request.options)
    if options.pop(_OUTPUTS, None) is not None:
        raise DecodeError(
            "outputs is no parameter: name them in the request's list of outputs, or in the query",
            where="parameters",
        )
    for wanted in request.outputs:
        if wanted.name not in model.outputs:
            raise DecodeError(
                f"unknown output {shown(wanted.name)}: those of {model.name} are "
                f"{', '.join(model.outputs)}",
                where="outputs",
            )
    if request.outputs and model.chooses:
        options[_OUTPUTS] = [wanted.name for wanted in request.outputs]
    return options


def _held(entry: Input) -> int:
    """Bytes that an input takes besides the body."""
    if isinstance(entry.source, Region):
        return entry.source.size if entry.row.numpy.kind in "iu" else 0
    return 0 if isinstance(entry.source, int) else entry.source.nbytes
