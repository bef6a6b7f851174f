"""The access log: nothing that a client sends forges a line of it, and probes are not in it."""

from __future__ import annotations

import logging
import logging.config
import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from service.cli import logs


def logged(path: str, client: str = "127.0.0.1:1") -> str | None:
    """Log line of a request, or None."""
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


@pytest.mark.parametrize(
    "query",
    ["token=abc", "access_token=abc", "x=1&API-KEY=abc", "apikey=abc", "%74oken=abc", "Auth=abc"],
)
def test_what_is_named_a_secret_is_not_logged(query: str) -> None:
    line = logged(f"/v1/softmax?{query}&class_axis=-1")
    assert line is not None
    assert "abc" not in line
    assert "[redacted]" in line
    assert '&class_axis=-1 HTTP/1.1" 200' in line


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
    monkeypatch.setattr(logs, "_tokens", set())
    assert "[redacted]" not in (logged(path) or "")
    logs.redact(["correct-horse", "k"])
    line = logged(path)
    assert line is not None
    assert "horse" not in line
    assert "[redacted]" in line
    assert "softmax" not in path or "/v1/softmax?" in line


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that is full, and both its ends."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 65536)
    os.set_blocking(writing, True)
    yield reading, writing
    os.close(writing)
    os.close(reading)


def lines_of(reading: int, last: str) -> list[str]:
    """All lines that can be read, up to one that holds ``last``."""
    text = ""
    while last not in text:
        text += os.read(reading, 65536).decode()
    return text.lstrip("x").splitlines()


def test_lines_that_nobody_reads_are_dropped_counted_and_told(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = logs.Writer(writing, most=10)
    for number in range(1000):
        writer.put(f"line {number}")
    writer.flush(timeout=0.01)  # does not wait for ever
    lines = lines_of(reading, "dropped")
    written = [line for line in lines if line.startswith("line ")]
    [said] = [line for line in lines if "dropped" in line]
    dropped = int(said.split("WARNING:")[1].split()[0])
    assert len(written) + dropped == 1000
    # The first ones: as many as there is room for, and those that the thread has taken already.
    assert written == [f"line {number}" for number in range(len(written))]
    assert 10 <= len(written) < 1000
    writer.put("afterwards")
    assert lines_of(reading, "afterwards") == ["afterwards"]


def test_a_line_may_be_only_so_long(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    logs.Writer(writing).put("y" * 100_000 + "z")
    [line] = lines_of(reading, "more characters")
    assert line == "y" * 8192 + " [91809 more characters]"


def test_lines_of_several_threads_are_all_written(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = logs.Writer(writing)

    def put(n: int) -> None:
        for i in range(100):
            writer.put(f"{n} {i}")

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.put("end")
    lines = lines_of(reading, "end")
    for n in range(4):
        assert [line for line in lines if line.startswith(f"{n} ")] == [
            f"{n} {i}" for i in range(100)
        ]


def test_what_cannot_be_written_ends_nothing(pipe: tuple[int, int]) -> None:
    reading, _ = pipe
    logs.write(reading, "not for writing")  # EBADF
    logs.write(10**6, "no such file")


def test_a_message_without_arguments_is_kept() -> None:
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, "ready", None, None)
    assert logs.requests()(record)
