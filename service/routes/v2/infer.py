"""``POST /v2/models/{model}/infer``: the headers make a codec, and the rest goes the common way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from fastapi import Request, Response

from kernels.steps import Work
from service import options
from service.codecs import Codec, DecodeError
from service.codecs.base import shown
from service.codecs.compression import CODINGS
from service.codecs.v2.answer import BINARY, HEADER_LENGTH
from service.codecs.v2.codec import Inference
from service.errors import UnsupportedMediaType
from service.memory.regions import Loan
from service.request import media
from service.request.exchange import respond
from service.request.operation import TENSORS, Operation, Service
from service.routes.v2 import models, statistics
from service.routes.v2.state import State

_LENGTH = re.compile(r"[0-9]{1,20}")
_FIELDS = (HEADER_LENGTH.lower().encode(), b"content-encoding", b"accept-encoding")


async def infer(request: Request) -> Response:
    """Compute the outputs of the model in the path; raises as ``answer``."""
    return await answer(models.named(request), request)


async def answer(name: str, request: Request) -> Response:
    """Compute the model's outputs; raises what ``service.errors`` has a row for."""
    state: State = request.app.state.v2
    service: Service = request.app.state.service
    length, coding, reply_coding = formats(
        tuple([field for field in request.scope["headers"] if field[0] in _FIELDS])
    )
    inference = Inference(
        model=models.MODELS[name],
        header_length=length,
        coding=coding,
        reply_coding=reply_coding,
        memory=Loan(state.regions),
        most_numbers=service.settings.max_json_answer_elements,
        names=TENSORS,
        limits=service.limits,
    )
    operation = models.OPERATIONS[name]
    query = options.from_query(operation.options, request.scope["query_string"])
    counted = statistics.Request()
    codec = _codec(inference, counted)
    timed = operation._replace(compute=partial(_computed, operation, counted))
    success = False
    try:
        response = await respond(request, timed, codec, codec, BINARY, query)
        success = True
    finally:
        state.counters[name].count(counted, success=success)
    return response


def _codec(inference: Inference, counted: statistics.Request) -> Codec:
    return Codec(
        name="v2",
        media_types=(BINARY,),
        decode=counted.timed("compute_input", inference.decode),
        encode=counted.timed("compute_output", inference.encode),
        first_tensor_at=inference.first_tensor_at,
        typed=True,
        at_once=inference.at_once,
        decoded_bytes=inference.decoded_bytes,
        encoded_bytes=inference.encoded_bytes,
        ready_at=inference.ready_at,
        growth=inference.growth,
    )


def _computed(operation: Operation, counted: statistics.Request, given: dict[str, Any]) -> Work:
    first = given[operation.needs[0]]
    counted.batch = len(first) if first.ndim > 1 else 1
    return counted.computed(operation.compute(given))


# Clients send the same few headers again and again.
@lru_cache(256)
def formats(
    fields: tuple[tuple[bytes, bytes], ...],
) -> tuple[int | None, str | None, str | None]:
    """How many bytes of JSON come first, the body's coding, and that of the answer.

    From the header's ``fields`` of these; raises as the functions that read each.
    """
    length, encodings, accepts = (media.values(fields, name) for name in _FIELDS)
    return header_length(length), body_coding(encodings), answer_coding(accepts)


def header_length(values: Sequence[str]) -> int | None:
    """How many bytes of JSON the body starts with, None where it is all JSON.

    Raises ``DecodeError`` where that is not one number, or is 0: a body without JSON cannot say
    which of a model's inputs it is.
    """
    if not values:
        return None
    if len(values) > 1 or not _LENGTH.fullmatch(values[0]) or int(values[0]) == 0:
        raise DecodeError(
            f"{HEADER_LENGTH} must be the number of bytes of JSON that the body starts with; raw"
            " requests, whose body has no JSON, are not read",
            where=HEADER_LENGTH.lower(),
        )
    return int(values[0])


def body_coding(values: Sequence[str]) -> str | None:
    """The body's content coding, None where there is none.

    Raises ``UnsupportedMediaType`` where it is another one than those of ``compression``.
    """
    given = [_coding(value) for value in media.listed(values) if value != "identity"]
    if not given:
        return None
    if len(given) > 1 or given[0] not in CODINGS:
        raise UnsupportedMediaType(
            f"Content-Encoding {shown(', '.join(given))} is not read: send the body as it is, or"
            f" as {' or '.join(CODINGS)}",
            field="content-encoding",
        )
    return given[0]


def answer_coding(values: Sequence[str]) -> str | None:
    """The coding that the client wants the answer in, None where it wants none of ours.

    It does where it names only that one, and wants it no less than none at all. Several are what
    HTTP libraries offer of themselves (aiohttp does), and compressing what is no text costs far
    more time than it saves.
    """
    wanted = {
        _coding(name): media.quality(parameters)
        for name, parameters in map(media.parsed, media.listed(values))
    }
    uncoded = wanted.pop("identity", 0.0)
    named = [name for name, quality in wanted.items() if quality > 0]
    if len(named) != 1 or named[0] not in CODINGS or wanted[named[0]] < uncoded:
        return None
    return named[0]


def _coding(name: str) -> str:
    """A content coding by its registered name: RFC 9110 has x-gzip mean gzip."""
    return "gzip" if name == "x-gzip" else name
