"""The end of a process: known at once, and what must be cut short is answered all the same."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Stopping
from service.problems import problem


@contextmanager
def on_sigterm(call: Callable[[], object]) -> Iterator[None]:
    """While it lasts, SIGTERM calls ``call`` and then the server's own handler.

    The server acts on the signal at its next turn, up to a tenth of a second later. Where it has no
    handler, or this is not the main thread, that is left as it is.
    """
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        call()
        before(number, frame)

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Farewell:
    """ASGI middleware: what the server cancels, because its time to stop is up, is a 503.

    uvicorn itself would make it a 500.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            # The server refuses a second answer, where the first has begun.
            with suppress(RuntimeError):
                await problem(Stopping("this was not done in time"))(scope, receive, send)
