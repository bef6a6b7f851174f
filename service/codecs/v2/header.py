"""Header of a V2 body: what its JSON says of inputs, options and memory, remembered if short."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from service.codecs.base import Limits, shown
from service.codecs.v2.members import has_elements
from service.codecs.v2.model import Model
from service.codecs.v2.request import InferRequest, Input, Region, parse
from service.errors import DecodeError

_OUTPUTS = "outputs"  # option that the request's list of outputs becomes
_SHORT = 1 << 12  # bytes of JSON that is remembered


class Header(NamedTuple):
    """Content of a request's JSON, shared between requests and never changed.

    ``asked``: the request without its inputs, whose elements are the caller's once decoded.
    ``binary_size``: bytes that follow the JSON.
    ``starts``: offset of each binary tensor's bytes behind the JSON, in their order.
    ``written``: regions of the outputs in shared memory, by name.
    ``options``: those of the model.
    ``held``: bytes that the inputs take besides the body.
    """

    request: InferRequest
    asked: InferRequest
    binary_size: int
    written: Mapping[str, Region]
    starts: Mapping[str, int]
    options: Mapping[str, Any]
    held: int


def header_of(text: memoryview, model: Model, names: frozenset[str], limits: Limits) -> Header:
    """Return the header that ``text``, a request's JSON, is.

    Raises ``DecodeError`` and ``TooLarge``, and ``TakesLong`` after ``limits.until``.
    """
    raw = bytes(text[: _SHORT + 1])
    if len(raw) > _SHORT or has_elements(raw):
        return _read(text, model, names, limits)
    return _remembered(raw, model, names, limits.decoded_bytes)


def _read(text: memoryview, model: Model, names: frozenset[str], limits: Limits) -> Header:
    request = parse(text, names, limits)
    at, starts = 0, {}
    for entry in request.inputs:
        if isinstance(entry.source, int):
            starts[entry.name] = at
            at += entry.source
    return Header(
        request=request,
        asked=request._replace(inputs=()),
        binary_size=at,
        written=request.written,
        starts=starts,
        options=_options(request, model),
        held=sum(map(_held, request.inputs)),
    )


# JSON beside binary tensors repeats: 0.1 us where reading that of two inputs takes 19.
@lru_cache(256)
def _remembered(raw: bytes, model: Model, names: frozenset[str], decoded_bytes: int) -> Header:
    return _read(memoryview(raw), model, names, Limits(decoded_bytes))


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
    if isinstance(entry.source, Region):
        return entry.source.size if entry.row.numpy.kind in "iub" else 0
    return 0 if isinstance(entry.source, int) else entry.source.nbytes
