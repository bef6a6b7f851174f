"""The access log: nothing that a client sends forges a line of it, and probes are not in it."""

from __future__ import annotations

import logging
import logging.config

import pytest

from service.cli import logs


def logged(path: str, client: str = "127.0.0.1:1") -> str | None:
    """What is written of a request: one line, or nothing."""
    arguments = (client, "GET", path, "1.1", 200)
    message = '%s - "%s %s HTTP/%s" %d'
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, message, arguments, None)
    configurator = logging.config.DictConfigurator(logs.CONFIG)
    formatter = configurator.configure_formatter(configurator.config["formatters"]["requests"])
    return formatter.format(record) if logs.requests()(record) else None


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"])
def test_probes_are_not_logged(path: str) -> None:
    assert logged(path) is None
    assert logged(path + "?x") is not None


@pytest.mark.parametrize("evil", ["\r\n", "\x1b[2J", "\x9b2J", "\x85", "\u2028", "\x00", "\x7f"])
def test_what_a_client_sent_is_escaped(evil: str) -> None:
    for line in (logged(f"/v1/softmax?{evil}"), logged("/", f"1.2.3.4{evil}")):
        assert line is not None
        assert line.isascii()
        assert line.isprintable()
        assert evil.encode("unicode_escape").decode() in line


def test_what_is_printable_is_logged_as_it_is() -> None:
    line = logged("/v1/softmax?a=%1b\\n")
    assert line is not None
    assert '127.0.0.1:1 "GET /v1/softmax?a=%1b\\n HTTP/1.1" 200' in line


def test_a_message_without_arguments_is_kept() -> None:
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, "ready", None, None)
    assert logs.requests()(record)
