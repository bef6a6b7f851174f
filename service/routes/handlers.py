"""Exception handlers for FastAPI: the errors of the table, and those of its own router."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from service.codecs.base import shown
from service.errors import UnknownPath, WrongMethod
from service.middleware.methods import allowed
from service.problems import GONE, TABLE, answer_to, problem


def install(app: FastAPI) -> None:
    """Have ``app`` answer every error of the table, and those of its router, in the one shape.

    An exception of no known class is raised again once it is answered: the server logs it with its
    traceback.
    """

    async def answer(request: Request, error: Exception) -> Response:
        return answer_to(error) or problem(error)

    async def answer_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path, headers = shown(request.scope["path"]), error.headers or {}
        if error.status_code == HTTPStatus.NOT_FOUND:
            error = UnknownPath(f"there is nothing at {path}: /docs lists the paths there are")
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # The router knows of one route's methods only, and of neither HEAD nor OPTIONS.
            methods = ", ".join(allowed(request.app.routes, request.scope))
            text = f"{path} does not answer {shown(request.method)}, but {methods}"
            error, headers = WrongMethod(text, field="method"), {"Allow": methods}
        response = problem(error)
        response.headers.update(headers)
        return response

    for kind in (*TABLE, *GONE):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(HTTPException, answer_http)
