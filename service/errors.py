"""Errors that a request may end in, besides those of kernels.

``service.problems`` has the status and the text that each is answered with.
"""

from __future__ import annotations


class RequestError(Exception):
    """Base class of errors of a request outside the bytes of its body.

    ``message`` says what is wrong and what would be right; ``field`` is the option, tensor or
    header at fault, or ``None``.
    """

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidOption(RequestError):
    """Option or output that is unknown, given twice, or of the wrong type."""


class MissingTensor(RequestError):
    """Tensor that the route needs and the request lacks, or that the route does not take."""


class UnsupportedMediaType(RequestError):
    """Content-Type or Content-Encoding that is not read."""


class NotAcceptable(RequestError):
    """Answer format that the service does not write, or not for so large an answer."""


class Unauthorized(RequestError):
    """Request without one of the bearer tokens of the settings."""


class MalformedRequest(RequestError):
    """Bytes on a connection that are not an HTTP/1.1 request."""


class HeaderTooLarge(RequestError):
    """Request header with more bytes or fields than the settings allow."""


class TooSlow(RequestError):
    """Request that arrives more slowly than the settings allow."""


class UnknownPath(RequestError):
    """Path that no route has."""


class WrongMethod(RequestError):
    """Method that the route of this path does not serve."""


class Overloaded(RequestError):
    """Queue of work, connections or memory at the limit that the settings set."""


class OutOfMemory(RequestError, MemoryError):
    """Memory that the operating system refuses to a body on its way."""


class UnknownRegion(RequestError):
    """Name that no shared memory region is registered under."""


class UnusableRegion(RequestError):
    """Shared memory region that is missing, too short, or overlaps another use of it."""


class NotOffered(RequestError):
    """Part of the V2 protocol that is not implemented, or is switched off."""


class Expired(RequestError):
    """Computation that took longer than the settings allow, time in the queue included."""


class Compiling(RequestError):
    """Kernel whose compilation takes longer than a request may wait for it."""


class NotReady(RequestError):
    """Server whose kernels are not compiled yet."""


class Stopping(RequestError):
    """Server that is shutting down."""


class DecodeError(Exception):
    """Body that is not what its media type says (HTTP 400).

    ``message`` says what is wrong and what would be right; ``where`` is the place in the body
    (``"logits[3]"``, ``"header"``, ``"byte 812"``), or ``None`` for the body as a whole.
    """

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where


class TooLarge(DecodeError):
    """Body or tensors above a limit, or more than the body's length justifies (HTTP 413)."""


class Disconnected(Exception):
    """Client gone, or refused: the server drops the empty 400 that answers this."""
