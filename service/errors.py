"""The one table from error class to status, title and advice, and the one shape they are sent in.

The shape is RFC 9457's problem details, plus ``error`` (the same text as ``detail``, which clients
of the Open Inference Protocol read) and ``field``, ``where`` and ``position`` where they are known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Response
from starlette.requests import ClientDisconnect

from kernels import DeviceFailed, DeviceOutOfMemory, DeviceUnavailable, InvalidInput
from service.codecs import DecodeError, TooLarge

MEDIA_TYPE = "application/problem+json"
_TYPE = "urn:lossd:problem:"
_LONGEST = 600  # characters of a detail: a sentence of ours, and at most some 200 of the client's


class RequestError(Exception):
    """What is wrong with a request besides its body: ``message`` says what would be right.

    ``field`` is the option, tensor or header at fault, where one is.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidOption(RequestError):
    """An option or output that is unknown, given twice, or of the wrong type."""


class MissingTensor(RequestError):
    """A tensor that the route needs is not there, or one that it has no use for is."""


class UnsupportedMediaType(RequestError):
    """A Content-Type or Content-Encoding that is not read."""


class NotAcceptable(RequestError):
    """An Accept header that no format of ours meets, or that the answer is too large for."""


class Unauthorized(RequestError):
    """The request carries none of the tokens that the server was given."""


class MalformedRequest(RequestError):
    """What came over the connection is no request of HTTP/1.1."""


class HeaderTooLarge(RequestError):
    """A request's header is longer than the settings allow, or has more fields."""


class TooSlow(RequestError):
    """A request comes more slowly than the settings allow."""


class UnknownPath(RequestError):
    """No route has this path."""


class WrongMethod(RequestError):
    """The path is there, but not for this method."""


class Overloaded(RequestError):
    """More work waits than the settings allow."""


class OutOfMemory(RequestError, MemoryError):
    """The system gives no memory for a request that is coming."""


class UnknownRegion(RequestError):
    """No shared memory region is registered under this name."""


class UnusableRegion(RequestError):
    """A shared memory region that cannot be what the request takes it for."""


class NotOffered(RequestError):
    """A part of the V2 protocol that this server does not have, or that is switched off."""


class Expired(RequestError):
    """A computation took longer than the settings allow, its turn included."""


class Compiling(RequestError):
    """The kernel that a request needs is being compiled, for longer than a request waits."""


class NotReady(RequestError):
    """The kernels are not compiled yet."""


class Stopping(RequestError):
    """The server was told to stop."""


class Disconnected(Exception):
    """The client is gone: nobody reads an answer, so nothing is sent."""


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of error: ``retry_after`` is in seconds."""

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
    MalformedRequest: Row(
        400,
        "malformed-request",
        "This is not a request of HTTP/1.1",
        "Send it with an HTTP client, or see RFC 9112.",
    ),
    UnusableRegion: Row(
        400,
        "unusable-region",
        "A shared memory region cannot be used",
        "Register memory of at least byte_size bytes, and keep it while requests use it.",
    ),
    Unauthorized: Row(
        401,
        "unauthorized",
        "The request needs a token",
        "Send `Authorization: Bearer` and a token that the server's operator gave you.",
    ),
    UnknownRegion: Row(
        404,
        "unknown-region",
        "No such shared memory region",
        "Register it first, at /v2/systemsharedmemory/region/{name}/register.",
    ),
    UnknownPath: Row(404, "unknown-path", "No such path", "See /docs for the paths there are."),
    WrongMethod: Row(
        405, "wrong-method", "Wrong method for this path", "Use a method of the Allow header."
    ),
    NotAcceptable: Row(
        406,
        "not-acceptable",
        "The answer cannot be given in that format",
        "Leave Accept out, or name a binary format.",
    ),
    TooSlow: Row(
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
    UnsupportedMediaType: Row(
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
    InvalidOption: Row(
        422,
        "invalid-option",
        "An option cannot be used",
        "See /docs for the options of this route.",
    ),
    MissingTensor: Row(
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
    HeaderTooLarge: Row(
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
    NotOffered: Row(501, "not-offered", "Not offered here", "See /v2 for the extensions it has."),
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
    # Not 504, which is a gateway's: this server itself is too busy, or the request too much for it.
    Expired: Row(
        503,
        "expired",
        "The computation took too long",
        "Send fewer rows at a time, or the request again when the server is less busy.",
        5,
    ),
    Compiling: Row(
        503,
        "compiling",
        "The kernel for this request is being compiled",
        "Send the request again after Retry-After: the compiling goes on.",
        10,
    ),
    NotReady: Row(503, "not-ready", "The server is starting", "Wait until /readyz answers 200.", 1),
    Stopping: Row(
        503, "stopping", "The server is stopping", "Send the request again in a few seconds.", 1
    ),
    Overloaded: Row(
        503, "overloaded", "The server is busy", "Send the request again after Retry-After.", 1
    ),
}

# Whoever asked, is not there to read an answer.
GONE = (Disconnected, ClientDisconnect)


def row_for(error: Exception) -> Row:
    """The table's row for the nearest class that ``error`` is of."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def problem(error: Exception) -> Response:
    """The answer to a request that ended in ``error``."""
    row = row_for(error)
    # Only errors of our own classes speak for themselves: others may name paths and internals.
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
    headers = {} if row.retry_after is None else {"Retry-After": str(row.retry_after)}
    return Response(json.dumps(body) + "\n", row.status, headers, MEDIA_TYPE)


def answer_to(error: Exception) -> Response | None:
    """What a client is answered, or ``None`` where ``error`` is a fault of ours, to be logged."""
    if isinstance(error, GONE):
        return Response(status_code=HTTPStatus.BAD_REQUEST)
    return None if row_for(error) is TABLE[Exception] else problem(error)
