"""HEAD and OPTIONS on every known path (RFC 9110, sections 9.3.2 and 9.3.7)."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

# Methods that routes are declared for; HEAD comes with GET, and OPTIONS with any.
_ROUTED = ("GET", "POST")
# The request target of an OPTIONS request that asks about the server, not about one path.
_SERVER = "*"


class Methods:
    """ASGI middleware that answers OPTIONS, and passes HEAD on as GET.

    The server leaves out the body of an answer to HEAD; its Content-Length is that of GET's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("HEAD", "OPTIONS"):
            methods = allowed(scope["app"].routes, scope)
            if methods and scope["method"] == "OPTIONS":
                answer = Response(
                    status_code=HTTPStatus.NO_CONTENT, headers={"Allow": ", ".join(methods)}
                )
                return await answer(scope, receive, send)
            if "HEAD" in methods:
                # A copy, as the server sees by its own scope that no body is to be sent.
                scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)


def allowed(routes: list[BaseRoute], scope: Scope) -> list[str]:
    """List the methods of ``scope``'s path: none where there is no such path."""
    if scope["path"] == _SERVER:
        return ["GET", "HEAD", "POST", "OPTIONS"]
    found = [method for method in _ROUTED if _matches(routes, {**scope, "method": method})]
    if "GET" in found:
        found.insert(1, "HEAD")
    return [*found, "OPTIONS"] if found else []


def _matches(routes: list[BaseRoute], scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in routes)
