"""Answers to the requests that the server cancels at the end of a shutdown."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Stopping
from service.problems import problem


class Drain:
    """ASGI middleware: a request that is cancelled, as the time to stop is up, is a 503.

    uvicorn itself would answer 500.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            # The server raises this at a second answer, where the first has begun.
            with suppress(RuntimeError):
                await problem(Stopping("this was not done in time"))(scope, receive, send)
