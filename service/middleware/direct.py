"""Direct dispatch of the computing routes, past FastAPI's routers: they take 50 us a request.

Routers match paths one by one, and resolve dependencies, of which these routes have none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service import problems


class Direct:
    """ASGI middleware: POST requests to a path of ``endpoints`` go there, all others to ``app``."""

    def __init__(
        self, app: ASGIApp, endpoints: Mapping[str, Callable[[Request], Awaitable[Response]]]
    ) -> None:
        self._app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        posted = scope["type"] == "http" and scope["method"] == "POST"
        endpoint = self._endpoints.get(scope["path"]) if posted else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await endpoint(Request(scope, receive, send))
        except Exception as error:
            refusal = problems.answer_to(error)
            if refusal is None:
                await problems.problem(error)(scope, receive, send)
                raise  # for the server to log
            response = refusal
        await response(scope, receive, send)
