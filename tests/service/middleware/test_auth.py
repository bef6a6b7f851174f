"""Without a token only health and the documentation are answered, whatever the method and Host."""

from __future__ import annotations

import logging
import random
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi import FastAPI

from service.app import create_app
from service.middleware import auth
from service.routes import OPERATIONS
from service.settings import SettingsError, load
from tests.service import wire
from tests.service.conftest import running, wait_until_ready

TOKENS = ("correct-horse", "battery~staple+1=")
SECRETS = ("correct-horse", "battery~staple")
MUTATED = 10_000


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(load(auth_tokens=", ".join(TOKENS)), warm=lambda: None)


def status_of(app: Any, path: str, method: str = "GET", **headers: str) -> int:
    """Status that ``app`` answers to a request whose body nobody may ask for."""
    statuses: list[int] = []

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("a body was asked for")

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), text.encode("latin-1")) for name, text in headers.items()],
        "app": app,
    }
    answered = app(scope, receive, send)
    with pytest.raises(StopIteration):  # it never waits, so it needs no event loop
        answered.send(None)
    [status] = statuses
    return status


PATHS = (
    "/page",
    "/page/",
    "/page/index.html",
    "/docs/",
    "/docs/other.js",
    "/openapi.yaml",
    "/nothing",
    "/v2",
    "/v2/models/softmax",
    "/v2/models/softmax/ready",
    "/v2/repository/index",
    *(operation.path for operation in OPERATIONS),
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "get", "BREW"])
def test_everything_but_health_and_documentation_needs_a_token(
    app: FastAPI, path: str, method: str
) -> None:
    assert status_of(app, path, method) == 401


@pytest.mark.parametrize(
    ("mode", "said"),
    [(0o600, []), (0o640, []), (0o644, ["read"]), (0o620, ["change"]), (0o666, ["read", "change"])],
)
def test_a_file_that_others_read_or_change_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, said: list[str]
) -> None:
    file = tmp_path / "tokens"
    file.write_text("a-token-of-some-length\n")
    file.chmod(mode)
    chosen = load(auth_token_file=str(file))
    auth.warn_of_weak(chosen, auth.tokens(chosen))
    expected = [f"others than its user may {' and '.join(said)} {file}"] if said else []
    assert [record.getMessage().split(", whose")[0] for record in caplog.records] == expected
    assert all(f"{mode:04o}" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("tokens", "count"), [("x", 1), ("x y", 2), ("x a-token-of-some-length", 1), ("l" * 16, 0)]
)
def test_tokens_that_can_be_guessed_are_told_and_not_shown(
    caplog: pytest.LogCaptureFixture, tokens: str, count: int
) -> None:
    create_app(load(auth_tokens=tokens), warm=lambda: None)
    told = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in told] == (
        [f"{count} of the tokens can be guessed"] if count else []
    )
    assert not any(token in line.split() for line in told for token in tokens.split())


def test_health_and_documentation_are_answered_to_anybody() -> None:
    settings = load(auth_tokens=TOKENS[0])
    with running(create_app(settings, warm=lambda: None)) as client:
        wait_until_ready(client)
        for path in auth.PUBLIC:
            assert client.get(path).status_code == 200
            assert client.post(path, content=b"x").status_code == 405
        documentation = client.get("/docs").text + client.get("/openapi.json").text
    assert not [secret for secret in SECRETS if secret in documentation]


def test_a_known_token_is_let_in_and_the_refusal_says_what_is_wanted() -> None:
    body = b'{"logits": [[1, 2]]}'
    settings = load(auth_tokens=", ".join(TOKENS))
    with running(create_app(settings, warm=lambda: None)) as client:
        refused = client.send("/v1/softmax", body, wire.JSON)
        assert wire.problem_of(refused, 401)["field"] == "authorization"
        assert refused.headers["www-authenticate"] == "Bearer"
        for token in TOKENS:
            for scheme in ("Bearer ", "bearer ", "BEARER   "):
                answer = client.get("/v2/models", headers={"authorization": scheme + token})
                assert answer.status_code == 200
        description = client.get(
            "/openapi.json", headers={"authorization": f"Bearer {TOKENS[0]}"}
        ).json()
    assert description["security"] == [{"bearer": []}]
    assert description["paths"]["/healthz"]["get"]["security"] == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer correct-hors",
        "Bearer correct-horse1",
        "Bearer Correct-Horse",
        "Bearer correct-horse, battery~staple+1=",
        "Bearer correct-horse correct-horse",
        "Basic correct-horse",
        "correct-horse",
        "Bearer\tcorrect-horse",
        "Bearer \xe9",
        "Bearer " + "x" * 100_000,
        "Bearercorrect-horse",
    ],
)
def test_other_credentials_are_refused(app: FastAPI, value: str) -> None:
    assert status_of(app, "/v2/models", authorization=value) == 401


def test_a_token_given_twice_is_refused(app: FastAPI) -> None:
    twice = [("authorization", f"Bearer {TOKENS[0]}")] * 2
    with running(app) as client:
        for headers in (twice, [*twice[:1], ("authorization", "Bearer x")]):
            assert client.get("/v2/models", headers=headers).status_code == 401
        assert client.get("/v2/models", headers=twice[:1]).status_code == 200


# What has made services take one path for another: a Host that holds a path, as in CVE-2026-48710,
# encodings, and everything that some part of a chain of servers tidies up.
HOSTS = ("lossd", "lossd/healthz", "lossd/healthz?", "x#/healthz", "a@b/readyz", "", "[::1", "\\")
PIECES = (
    *("/", "//", "/./", "/../", "%2e", "%2E%2e", "%2f", "%252f", ";", "?", "#", "\\", "%00", "\0"),
    *(" ", "\t", "%20", "\n", "\r\n", ":", "@", ".", "..", "%c0%ae", "\u2215", "\uff0e", "\xe9"),
)


def mutated(rng: random.Random) -> str:
    """A path made of a public one, a private one, or both, and of one to four odd pieces."""
    words = [rng.choice((*sorted(auth.PUBLIC), *PATHS)) for _ in range(rng.randint(1, 2))]
    path = "".join(words)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(path) + 1)
        match rng.randrange(4):
            case 0:
                path = path[:at] + rng.choice(PIECES) + path[at:]
            case 1:
                path = path[:at] + path[at : at + 1].swapcase() + path[at + 1 :]
            case 2:
                path = path[:at] + f"%{ord(path[at : at + 1] or '/') % 256:02x}" + path[at + 1 :]
            case _:
                path = path + rng.choice(("/", "//", " ", "/.", "/..", ".json", "%00", "?x", ";x"))
    return unquote(path) if rng.random() < 0.5 else path


def test_no_mutated_request_gets_past(app: FastAPI) -> None:
    rng = random.Random(48710)
    seen = 0
    for _ in range(MUTATED):
        path = mutated(rng)
        method = rng.choice(("GET", "POST", "HEAD", "PUT", "OPTIONS", "TRACE", "Get", ""))
        headers = {
            "host": rng.choice(HOSTS),
            rng.choice(("x-forwarded-path", "x-original-url", "x-rewrite-url")): "/healthz",
        }
        if path not in auth.PUBLIC:
            assert status_of(app, path, method, **headers) == 401, (path, method, headers)
            seen += 1
    assert seen > 0.9 * MUTATED


def test_a_root_path_makes_nothing_public(app: FastAPI) -> None:
    for path in ("/v1/softmax/healthz", "/healthz/docs", "/healthz/"):
        assert status_of(app, path) == 401


async def test_a_websocket_is_closed(app: FastAPI) -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/softmax", "headers": [], "app": app}
    await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_every_digest_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)
    app = create_app(load(auth_tokens=" ".join(TOKENS)), warm=lambda: None)
    for value in (f"Bearer {TOKENS[0]}", f"Bearer {TOKENS[1]}", "Bearer x", ""):
        compared.clear()
        status_of(app, "/v2/models", authorization=value)
        assert compared == [(32, 32)] * len(TOKENS)


def test_tokens_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# for the batch jobs\none\r\n\n  two \n")
    chosen = load(auth_token_file=str(file), auth_tokens="three,,four\n")
    assert auth.tokens(chosen) == {"one", "two", "three", "four"}
    assert auth.tokens(load()) == frozenset()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no token"),
        (b"# none yet\n\n", "holds no token"),
        (b"good\ncorrect-horse staple\n", "line 2 is not"),
        ("corr\xe9ct-horse\n".encode(), "line 1 is not"),
        (b"\xffcorrect-horse", "cannot be read: not a text"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_without_usable_tokens_stops_the_start(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "tokens"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=said) as caught:
        create_app(load(auth_token_file=str(file)))
    assert "horse" not in str(caught.value)


@pytest.mark.parametrize("value", ["", " ", ",", "correct-horse caf\xe9"])
def test_a_variable_without_usable_tokens_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("LOSSD_AUTH_TOKENS", value)
    with pytest.raises(SettingsError, match="LOSSD_AUTH_TOKENS") as caught:
        create_app()
    assert "horse" not in str(caught.value)


def test_no_secret_is_ever_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    chosen = load(auth_tokens=", ".join(TOKENS))
    app = create_app(chosen, warm=lambda: None)
    with running(app) as client:
        headers = {"authorization": f"Bearer {TOKENS[0]}x"}
        refused = client.post("/v1/softmax", content=b"", headers=headers)
    dumps = (repr(chosen), str(chosen), str(chosen.model_dump()), chosen.model_dump_json())
    written = [*dumps, str(chosen.environment()), refused.text, str(refused.headers), caplog.text]
    assert not [text for text in written for secret in SECRETS if secret in text]
