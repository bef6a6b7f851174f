"""Path prefix: requests below it are those of the same path without it."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class Prefix:
    """ASGI middleware that removes ``prefix`` from the path, for proxies that leave it there.

    Paths without it stay as they are: probes come past the proxy, and some proxies remove it. The
    prefix alone leads to the prefix and a slash, which the page's relative links start from.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path == self._prefix:
                status = HTTPStatus.PERMANENT_REDIRECT
                return await RedirectResponse(f"{path}/", status)(scope, receive, send)
            if path.startswith(f"{self._prefix}/"):
                # In place: the server's log, too, goes by paths without it.
                scope["path"] = path[len(self._prefix) :]
        await self._app(scope, receive, send)
