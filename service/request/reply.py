"""Reply: an answer's buffers, sent as they lie, and a lease that ends with the last byte."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import Response, responses
from starlette.types import Receive, Scope, Send

from service.codecs.base import Answer, Encoded
from service.memory.budget import Lease
from service.regimes import REPLY_PIECE_BYTES


class JSONResponse(responses.JSONResponse):
    """A small JSON answer; a newline ends it, as it ends the larger ones."""

    def render(self, content: Any) -> bytes:
        return super().render(content) + b"\n"


class Reply(Response):
    """Answer with status 200; ``lease`` is released once all of it is sent, or never will be.

    ``size``: bytes of its body.
    """

    def __init__(self, answer: Answer, media_type: str, lease: Lease) -> None:
        # Not the base class's, which makes each header anew: a small loss takes hardly longer.
        whole = answer if isinstance(answer, Encoded) else Encoded(answer)
        self.status_code = HTTPStatus.OK
        self.background = None
        self.body = whole.content
        self.size = size_of(answer)
        self.raw_headers = [
            (b"content-length", b"%d" % self.size),
            (b"content-type", (whole.media_type or media_type).encode("latin-1")),
            *[(name.lower().encode(), text.encode()) for name, text in whole.headers.items()],
        ]
        self._more = whole.more
        self._lease = lease

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, headers = self.status_code, self.raw_headers
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            if not self._more and len(self.body) <= REPLY_PIECE_BYTES:
                await send({"type": "http.response.body", "body": self.body})
                return
            for buffer in (memoryview(self.body), *self._more):
                for start in range(0, len(buffer), REPLY_PIECE_BYTES):
                    piece = buffer[start : start + REPLY_PIECE_BYTES]
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            # Not sent before what precedes it is on its way.
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._lease.release()


def size_of(answer: Answer) -> int:
    """Bytes of all of ``answer``."""
    if isinstance(answer, Encoded):
        return len(answer.content) + sum(map(len, answer.more))
    return len(answer)
