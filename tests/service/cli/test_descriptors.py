"""File descriptors: as many as there may be, and connections for what they leave."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack

import pytest
import typer

from service.cli.descriptors import most_connections
from service.process import START_FAILED
from tests.service.conftest import serving

resource = pytest.importorskip("resource")
ENOUGH = 16384 + 2048 + 128


class Limit:
    """The system's limit of open files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> None:
        self.now = (soft, hard)
        monkeypatch.setattr(resource, "getrlimit", lambda _: self.now)
        monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: setattr(self, "now", wanted))


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 4096, 4096),
        (1024, 2**20, ENOUGH),
        (1024, resource.RLIM_INFINITY, ENOUGH),
        (2**20, 2**20, 2**20),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY),
        (256, 256, 256),
    ],
)
def test_the_limit_of_open_files_is_raised_and_never_lowered(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int
) -> None:
    limit = Limit(monkeypatch, soft, hard)
    most = most_connections(1)
    assert limit.now == (raised, hard)
    assert most == 16384 if raised not in (256, 4096) else most < 16384


@pytest.mark.parametrize("allowed", [57, 64, 100, 128, 192, 256, 1000, 1024, 4096, 18559, 20000])
def test_connections_and_those_that_are_refused_leave_files_for_others(
    monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    Limit(monkeypatch, allowed, allowed)
    most = most_connections(1)
    assert most >= 8
    left = allowed - most - most // 8
    assert left >= min(128, max(48, allowed // 4))
    assert most == 16384 or left <= allowed // 4 + 48


@pytest.mark.parametrize(
    ("allowed", "workers", "said"),
    [(20, 1, "57"), (56, 1, "57"), (64, 2, "65"), (300, 64, "313")],
)
def test_too_few_files_to_serve_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    allowed: int,
    workers: int,
    said: str,
) -> None:
    Limit(monkeypatch, allowed, allowed)
    with pytest.raises(typer.Exit) as stopped:
        most_connections(workers)
    assert stopped.value.exit_code == START_FAILED
    told = capsys.readouterr().err
    assert f"only {allowed} files may be open (ulimit -n), and {said} are the fewest" in told


def test_the_fewest_files_serve_and_every_connection_is_answered() -> None:
    with serving("sh", "-c", 'ulimit -n 57; exec "$0" "$@"') as url, ExitStack() as opened:
        address = (url.host, url.port or 80)
        connections = [
            opened.enter_context(socket.create_connection(address, timeout=60)) for _ in range(100)
        ]
        answers = []
        for connection in connections:
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            with connection.makefile("rb") as received:
                answers.append(received.read())
    served = [answer for answer in answers if answer.startswith(b"HTTP/1.1 200 ")]
    assert 8 <= len(served) < 20
    for answer in answers:
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert answer in served or body["type"] == "urn:lossd:problem:overloaded"
