"""Small JSON bodies, of requests without tensors."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from service.codecs.json.members import close_body, value_at
from service.errors import DecodeError, TooLarge
from service.request.body import declared_length

LIMIT = 1 << 14  # bytes: a hundred times what any client sends


async def small_object(request: Request) -> dict[str, Any]:
    """Return the JSON object that the body is, whatever its Content-Type; an empty body is {}.

    Raises ``DecodeError`` for anything else, ``TooLarge`` above ``LIMIT``.
    """
    declared_length(request.headers.getlist("content-length"), LIMIT)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LIMIT:
            raise TooLarge(f"the body may hold at most {LIMIT:,} bytes", where="body")
    text = memoryview(bytes(body).lstrip())
    if not text:
        return {}
    value, end = value_at(text, 0, LIMIT, "the body")
    close_body(text, end)
    if not isinstance(value, dict):
        raise DecodeError("the body must be a JSON object", where="byte 0")
    return value
