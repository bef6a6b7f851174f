"""Table from error class to status, title and advice, and the answer made from it.

The answer has the shape of RFC 9457, plus ``error`` (the text of ``detail``, where clients of the
Open Inference Protocol look for it) and, where they are known, ``field``, ``where`` and
``position``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from kernels import DeviceFailed, DeviceOutOfMemory, DeviceUnavailable, InvalidInput
from service import errors
from service.errors import DecodeError, TooLarge

MEDIA_TYPE = "application/problem+json"
# Key of a request's ASGI scope: the name of the problem that is answered.
PROBLEM = "lossd.problem"
_TYPE = "urn:lossd:problem:"
_LONGEST = 600  # characters of a detail: a sentence of the service, and some 200 of the client's


@dataclass(frozen=True, slots=True)
class Row:
    """Status, name, title and advice of a kind of error; ``retry_after`` in seconds."""

    status: int
    name: str
    title: str
    advice: str
    retry_after: int | None = None


TABLE: dict[type[Exception], Row] = {
    DecodeError: Row(
        400,
        "malformed-body",
        "The body is not what its media type says",
        "See /docs for the layout of each format.",
    ),
    errors.MalformedRequest: Row(
        400,
        "malformed-request",
        "This is not a request of HTTP/1.1",
        "Send it with an HTTP client, or see RFC 9112.",
    ),
    errors.UnusableRegion: Row(
        400,
        "unusable-region",
        "A shared memory region cannot be used",
        "Register memory of at least byte_size bytes, and keep it while requests use it.",
    ),
    errors.Unauthorized: Row(
        401,
        "unauthorized",
        "The request needs a token",
        "Send `Authorization: Bearer` and a token that the server's operator gave you.",
    ),
    errors.UnknownRegion: Row(
        404,
        "unknown-region",
        "No such shared memory region",
        "Register it first, at /v2/systemsharedmemory/region/{name}/register.",
    ),
    errors.UnknownPath: Row(
        404, "unknown-path", "No such path", "See /docs for the paths there are."
    ),
    errors.WrongMethod: Row(
        405, "wrong-method", "Wrong method for this path", "Use a method of the Allow header."
    ),
    errors.NotAcceptable: Row(
        406,
        "not-acceptable",
        "The answer cannot be given in that format",
        "Leave Accept out, or name a binary format.",
    ),
    errors.TooSlow: Row(
        408,
        "too-slow",
        "The request came too slowly",
        "Send it over a faster connection, or have the limit lowered where the server is started.",
    ),
    TooLarge: Row(
        413,
        "too-large",
        "The request is too large",
        "Send fewer rows at a time, or have the limit raised where the server is started.",
    ),
    errors.UnsupportedMediaType: Row(
        415,
        "unsupported-media-type",
        "The body's media type is not read",
        "Set Content-Type to the format that the body is in, and leave Content-Encoding out.",
    ),
    InvalidInput: Row(
        422,
        "invalid-input",
        "No loss can be computed from these tensors and options",
        "See /docs for the shapes and types of this route's tensors.",
    ),
    errors.InvalidOption: Row(
        422,
        "invalid-option",
        "An option cannot be used",
        "See /docs for the options of this route.",
    ),
    errors.MissingTensor: Row(
        422,
        "wrong-tensors",
        "The request does not hold the tensors that this route needs",
        "See /docs for the tensors of this route.",
    ),
    DeviceUnavailable: Row(
        422,
        "device-unavailable",
        "There is no GPU for this request",
        "Leave `device` out, or have the server started for a GPU.",
    ),
    errors.HeaderTooLarge: Row(
        431,
        "header-too-large",
        "The request's header is too large",
        "Send fewer and shorter header fields.",
    ),
    Exception: Row(
        500,
        "internal-error",
        "The server failed",
        "This is a fault of the server: please report it with the request that caused it.",
    ),
    errors.NotOffered: Row(
        501, "not-offered", "Not offered here", "See /v2 for the extensions it has."
    ),
    MemoryError: Row(
        503, "out-of-memory", "No memory for this request", "Send it again later, or smaller.", 5
    ),
    DeviceOutOfMemory: Row(
        503,
        "device-out-of-memory",
        "The GPU has no memory for this request",
        "Send it again later, or smaller, or with `device` cpu.",
        5,
    ),
    DeviceFailed: Row(
        503,
        "device-failed",
        "The GPU failed, and this process ends",
        "Send it again to the process that takes its place.",
        10,
    ),
    # 503, not 504: a gateway sends 504 for another server's delay.
    errors.Expired: Row(
        503,
        "expired",
        "The computation took too long",
        "Send fewer rows at a time, or the request again when the server is less busy.",
        5,
    ),
    errors.Compiling: Row(
        503,
        "compiling",
        "The kernel for this request is being compiled",
        "Send the request again after Retry-After: the compiling goes on.",
        10,
    ),
    errors.NotReady: Row(
        503, "not-ready", "The server is starting", "Wait until /readyz answers 200.", 1
    ),
    errors.Stopping: Row(
        503, "stopping", "The server is stopping", "Send the request again in a few seconds.", 1
    ),
    errors.Overloaded: Row(
        503, "overloaded", "The server is busy", "Send the request again after Retry-After.", 1
    ),
}

# Raised when the client has closed the connection.
GONE = (errors.Disconnected, ClientDisconnect)


def row_for(error: Exception) -> Row:
    """Return the table's row for the nearest class in the method resolution order of ``error``."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


class Problem(Response):
    """Answer to a request that ended in an error of the table's ``row``."""

    media_type = MEDIA_TYPE

    def __init__(self, row: Row, body: dict[str, Any]) -> None:
        headers = {} if row.retry_after is None else {"Retry-After": str(row.retry_after)}
        super().__init__(json.dumps(body) + "\n", row.status, headers)
        self._name = row.name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PROBLEM] = self._name
        await super().__call__(scope, receive, send)


def problem(error: Exception) -> Problem:
    """Return the answer to a request that ended in ``error``."""
    row = row_for(error)
    # Classes without ``message`` are not written for clients: they may name paths and internals.
    detail = str(getattr(error, "message", row.title))
    if len(detail) > _LONGEST:
        detail = detail[: _LONGEST - 3] + "..."
    body: dict[str, Any] = {
        "type": _TYPE + row.name,
        "title": row.title,
        "status": row.status,
        "detail": detail,
        "error": detail,
        "advice": row.advice,
    }
    for name in ("field", "where", "position"):
        value = getattr(error, name, None)
        if value is not None:
            body[name] = value[:200] if isinstance(value, str) else [int(index) for index in value]
    return Problem(row, body)


def answer_to(error: Exception) -> Response | None:
    """Return the answer to ``error``, or ``None`` for a fault of the server, which is logged."""
    if isinstance(error, GONE):
        return Response(status_code=HTTPStatus.BAD_REQUEST)
    return None if row_for(error) is TABLE[Exception] else problem(error)
