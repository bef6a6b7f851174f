"""What FastAPI is told to answer to errors: those of the table, and those of its own router."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from service.codecs.base import shown
from service.errors import GONE, TABLE, UnknownPath, WrongMethod, answer_to, problem


def install(app: FastAPI) -> None:
    """Have ``app`` answer every error of the table, and those of its router, in the one shape.

    An exception of no known class is raised again once it is answered: the server logs it with its
    traceback.
    """

    async def answer(request: Request, error: Exception) -> Response:
        return answer_to(error) or problem(error)

    async def answer_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = problem(_of_router(request, error))
        response.headers.update(error.headers or {})
        return response

    for kind in (*TABLE, *GONE):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(HTTPException, answer_http)


def _of_router(request: Request, error: HTTPException) -> Exception:
    path = shown(request.scope["path"])
    if error.status_code == HTTPStatus.NOT_FOUND:
        return UnknownPath(f"there is nothing at {path}: /docs lists the paths there are")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        method = shown(request.method)
        return WrongMethod(f"{path} does not answer {method}, but {allowed}", field="method")
    return error
