"""``POST /v2/models/{model}/infer``: the codec that its headers make, then as any request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from fastapi import APIRouter, Request, Response

from service.codecs.base import TENSORS, shown
from service.codecs.compression import CODINGS
from service.codecs.v2.answer import BINARY, HEADER_LENGTH
from service.codecs.v2.codec import Inference
from service.errors import DecodeError, UnsupportedMediaType
from service.memory.regions import Loan
from service.request import media
from service.request.exchange import respond
from service.request.given import from_query
from service.request.operation import Call, Service
from service.routes.v2 import description, models
from service.routes.v2.statistics import State
from service.telemetry import record

_LENGTH = re.compile(r"[0-9]{1,20}")
_FIELDS = (HEADER_LENGTH.lower().encode(), b"content-encoding", b"accept-encoding")


router = APIRouter()


# For the description, and to refuse models that there are not: all others are in ``ENDPOINTS``.
@router.post("/v2/models/{model}/versions/{version}/infer", include_in_schema=False)
@router.post(
    "/v2/models/{model}/infer",
    summary="Inference",
    description="The outputs of a model, which is the route of the same name in `/v1`: as JSON, or"
    " as JSON followed by binary tensors.",
    operation_id="infer",
    response_class=Response,
    openapi_extra=description.inference(),
)
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
    codec = Inference(
        model=models.MODELS[name],
        header_length=length,
        coding=coding,
        reply_coding=reply_coding,
        memory=Loan(state.regions),
        names=TENSORS,
        limits=service.limits,
    )
    operation = models.OPERATIONS[name]
    query = from_query(operation.options, request.scope["query_string"])
    call = Call(service, operation, codec, codec, query, record.of(request.scope))
    return await respond(request, call, BINARY)


# Headers repeat: 0.1 us where reading them takes 6.
@lru_cache(256)
def formats(fields: tuple[tuple[bytes, bytes], ...]) -> tuple[int | None, str | None, str | None]:
    """Return the length of the JSON, the body's coding, and the answer's.

    ``fields`` are the header's of these names. Raises as the functions that read each.
    """
    length, encodings, accepts = (media.values(fields, name) for name in _FIELDS)
    return header_length(length), body_coding(encodings), answer_coding(accepts)


def header_length(values: Sequence[str]) -> int | None:
    """Return how many bytes of JSON the body starts with, ``None`` if it is all JSON.

    Raises ``DecodeError`` unless that is one number, and not 0: a body without JSON does not say
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
    """Return the body's content coding, ``None`` if it has none.

    Raises ``UnsupportedMediaType`` for another one than those of ``compression``.
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
    """Return the content coding of the answer, ``None`` for none.

    Only a single coding counts, and only if the client wants it no less than none: HTTP libraries
    offer several unasked (aiohttp does), and compressing binary tensors costs far more time than it
    saves.
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
    """Return the registered name of a content coding: x-gzip is gzip (RFC 9110)."""
    return "gzip" if name == "x-gzip" else name
