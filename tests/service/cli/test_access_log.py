"""The access log: nothing that a client sends forges a line of it, and probes are not in it."""

from __future__ import annotations

import json

import pytest

from service.cli import access_log, logs
from service.telemetry.counters import here
from service.telemetry.record import Record


def logged(path: str, form: str = "text", request_id: str = "an-id") -> str | None:
    """Line that is written of a request, or nothing."""
    record = Record()
    record.begin(here(), {b"x-request-id": request_id.encode()})
    route, _, query = path.partition("?")
    record.scope = {
        "method": "GET",
        "path": route,
        "query_string": query.encode("latin-1", "replace"),
        "client": ("127.0.0.1", 1),
    }
    record.end(200)
    written: list[logs.Line] = []
    access_log.observer(form, written.append)(record)
    line = written[0] if written else None
    return line() if callable(line) else line


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/metrics"]
)
def test_probes_are_not_logged(path: str) -> None:
    assert logged(path) is None
    assert logged(path + "?x") is not None


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("evil", ["\r\n", "\x1b[2J", "\x9b2J", "\x85", "\x00", "\x7f", "\u2028"])
def test_what_a_client_sent_is_escaped(evil: str, form: str) -> None:
    for path in (f"/v1/softmax?{evil}", f"/{evil}"):
        line = logged(path, form=form)
        assert line is not None
        assert line.isascii()
        assert line.isprintable()


def test_what_is_printable_is_logged_as_it_is() -> None:
    line = logged("/v1/softmax?a=%1b\\n")
    assert line is not None
    assert '127.0.0.1:1 "GET /v1/softmax?a=%1b\\\\n" 200' in line
    assert "request_id=an-id" in line


@pytest.mark.parametrize("character", ['"', "\\", "\u00e9", "a\\"])
def test_a_line_of_json_is_not_cut(character: str) -> None:
    for count in (1, 500, 511, 512, 513, 30_000):
        line = logged("/" + character * count, form="json")
        assert line is not None
        assert len(line) < 8192
        path = json.loads(line)["path"]
        assert path.startswith("/")
        assert count < 30_000 or "more characters]" in path


def test_an_id_with_quotes_stays_itself() -> None:
    line = logged("/v1/softmax", form="json", request_id='a"b\\c')
    assert line is not None
    assert json.loads(line)["request_id"] == 'a"b\\c'


@pytest.mark.parametrize(
    "query",
    ["token=abc", "access_token=abc", "x=1&API-KEY=abc", "apikey=abc", "%74oken=abc", "Auth=abc"],
)
def test_what_is_named_a_secret_is_not_logged(query: str) -> None:
    line = logged(f"/v1/softmax?{query}&class_axis=-1")
    assert line is not None
    assert "abc" not in line
    assert "[redacted]" in line
    assert '&class_axis=-1" 200' in line


@pytest.mark.parametrize(
    "path",
    [
        "/v1/softmax?x=correct-horse",
        "/v1/softmax?correct-horse",
        "/v1/softmax?x=correct%2Dhorse&y=1",
        "/v1/softmax?x=Bearer%20correct-horse",
        "/v1/softmax?correct-horse=1",
        "/correct-horse",
        "/v1/softmax?x=k",
    ],
)
def test_the_servers_own_tokens_are_never_logged(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "_tokens", set())
    assert "[redacted]" not in (logged(path) or "")
    access_log.redact(["correct-horse", "k"])
    line = logged(path)
    assert line is not None
    assert "horse" not in line
    assert "[redacted]" in line
    assert "softmax" not in path or "/v1/softmax?" in line
