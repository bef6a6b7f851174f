"""Every error has the one shape, its row of the table, and says nothing that it should not."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from fastapi import FastAPI

from kernels import InvalidInput
from service import problems
from service.errors import (
    DecodeError,
    Disconnected,
    InvalidOption,
    NotReady,
    OutOfMemory,
    Overloaded,
    RequestError,
    TooLarge,
    UnknownPath,
)
from service.problems import problem
from service.routes import handlers
from tests.service import wire
from tests.service.conftest import Client, running

ERRORS: list[Exception] = [
    DecodeError("bad header", where="header"),
    TooLarge("too large", where="logits"),
    InvalidInput("labels[1, 2] is 9", field="labels", position=(1, 2)),
    InvalidInput("labels is 9", field="labels", position=()),
    InvalidOption("unknown", field="reduction"),
    Overloaded("busy"),
    NotReady("starting"),
    UnknownPath("nothing there"),
    MemoryError("/secret/path"),
    RuntimeError("/secret/path"),
    KeyError("secret"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_has_the_one_shape(error: Exception) -> None:
    response = problem(error)
    body = json.loads(bytes(response.body))
    row = problems.row_for(error)
    assert response.media_type == "application/problem+json"
    assert response.status_code == body["status"] == row.status
    assert (body["type"], body["title"]) == (f"urn:lossd:problem:{row.name}", row.title)
    assert body["error"] == body["detail"]
    assert body["advice"] == row.advice
    for name in ("field", "where"):
        assert body.get(name) == getattr(error, name, None)
    position = getattr(error, "position", None)
    assert body.get("position") == (None if position is None else list(position))
    assert (response.headers.get("retry-after") is not None) == (row.status == 503)
    assert "secret" not in str(body)


def test_subclasses_have_the_row_of_their_nearest_base() -> None:
    assert problems.row_for(np.exceptions.AxisError("x")).status == 500
    assert problems.row_for(TooLarge("x")).status == 413
    memory_error = type("_ArrayMemoryError", (MemoryError,), {})()
    assert problems.row_for(memory_error).status == 503


def test_names_and_classes_of_errors_are_used_once() -> None:
    assert len({row.name for row in problems.TABLE.values()}) == len(problems.TABLE)
    own = {RequestError, *RequestError.__subclasses__()}
    assert own - problems.TABLE.keys() == {RequestError, OutOfMemory}  # a MemoryError too
    assert problems.row_for(OutOfMemory("x")) is problems.TABLE[MemoryError]


def test_a_clients_text_comes_back_bounded_and_clean() -> None:
    error = InvalidOption("x" * 10**6, field="\ud800" + "y" * 10**6)
    response = problem(error)
    assert len(response.body) < 3000
    assert json.loads(bytes(response.body))["detail"].endswith("...")


def failing(error: Exception) -> FastAPI:
    app = FastAPI()
    handlers.install(app)

    @app.get("/fail")
    async def fail() -> None:
        raise error

    return app


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_application_answers_with_the_problem(error: Exception) -> None:
    with running(failing(error)) as client:
        answered = wire.problem_of(client.get("/fail"), problems.row_for(error).status)
    assert answered == json.loads(bytes(problem(error).body))


async def test_an_unknown_error_reaches_the_servers_log_and_not_the_client() -> None:
    app = failing(RuntimeError("the secret"))

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/fail",
        "headers": [],
        "query_string": b"",
    }

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        assert b"secret" not in str(message).encode()

    # uvicorn logs what an application raises, with its traceback.
    with pytest.raises(RuntimeError, match="the secret"):
        await app(scope, receive, send)


def test_a_client_that_is_gone_is_not_an_error(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), running(failing(Disconnected())) as client:
        assert client.get("/fail").content == b""
    assert not caplog.records


@pytest.mark.parametrize(
    "path", ["/nope", "/v1/softmax/", "/v1", "/docs/../secret", "/%ff", "/" + "x" * 5000]
)
def test_unknown_paths_are_problems(client: Client, path: str) -> None:
    answered = wire.problem_of(client.get(path), 404)
    assert len(answered["detail"]) < 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/softmax", "POST, OPTIONS"),
        ("DELETE", "/v1/explain", "POST, OPTIONS"),
        ("POST", "/healthz", "GET, HEAD, OPTIONS"),
    ],
)
def test_wrong_methods_are_problems_that_name_the_right_one(
    client: Client, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    assert response.headers["allow"] == allowed
    assert allowed in wire.problem_of(response, 405)["detail"]


def test_the_short_way_answers_what_the_application_does() -> None:
    for error in ERRORS:
        answered = problems.answer_to(error)
        ours = problems.row_for(error).status == 500
        assert (answered is None) == ours
        assert answered is None or answered.body == problem(error).body
    gone = problems.answer_to(Disconnected())
    assert gone is not None
    assert (gone.status_code, gone.body) == (400, b"")
