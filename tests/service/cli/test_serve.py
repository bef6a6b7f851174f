"""``lossd serve``: its options are the settings, and it starts, tells, and stops as told."""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from typer.testing import CliRunner

from benchmarks.server import running
from service import settings
from service.cli import app, serve

WIDE = {"COLUMNS": "500"}  # so that no word of the help is broken


def refusal(*arguments: str) -> str:
    """What ``lossd serve`` says on stderr when it refuses to start."""
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == serve.REFUSED, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def post(request: Request) -> bytes:
    """The answer, from whichever worker is the first to be ready: others may still say 503."""
    for _ in range(600):
        try:
            with urlopen(request) as response:
                answer: bytes = response.read()
                return answer
        except HTTPError as error:
            error.close()
            if error.code != 503:
                raise
            time.sleep(0.1)
    pytest.fail("no worker that was asked is ready")


@pytest.mark.parametrize("name", settings.Settings.model_fields)
def test_every_setting_is_an_option(name: str) -> None:
    result = CliRunner(env=WIDE).invoke(app, ["serve", "--help"])
    option = "--" + name.replace("_", "-")
    [line] = [line for line in result.stdout.splitlines() if f" {option} " in line]
    field = settings.Settings.model_fields[name]
    assert field.description is not None
    assert field.description in line
    assert f"(default: {field.default})" in line
    assert settings.variable(name) in line


def test_an_option_that_cannot_be_used_is_named() -> None:
    assert "--port is 'eighty'" in refusal("--port", "eighty")


def test_a_variable_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSD_WORKERS", "0")
    assert "LOSSD_WORKERS is '0'" in refusal()


def test_an_unknown_option_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["serve", "--prot", "1"]).exit_code == 2


def test_a_port_that_is_taken_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}: Address already in use" in refusal("--port", port)


@pytest.mark.parametrize("host", ["no such host", "x" * 300])
def test_a_host_that_cannot_be_listened_on_is_refused(host: str) -> None:
    assert f"cannot listen on {host}" in refusal("--host", host)


@pytest.mark.parametrize(("path", "kept"), [("/v1/softmax", True), ("/readyz", False)])
def test_probes_are_not_logged(path: str, kept: bool) -> None:
    arguments = ("127.0.0.1:1", "GET", path, "1.1", 200)
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, "", arguments, None)
    assert serve.no_probes()(record) is kept


# One worker runs in the command's own process, two in processes that it spawns.
@pytest.mark.parametrize("workers", [1, 2])
def test_what_it_says_to_paste_is_answered(workers: int) -> None:
    with running("--workers", str(workers), LOSSD_LOG_LEVEL="warning") as url:
        host, port = url.removeprefix("http://").split(":")
        [line] = [line for line in serve.greeting(host, int(port)).splitlines() if "curl" in line]
        _, target, _, header, _, body = shlex.split(line)
        name, value = header.split(": ")
        answer = json.loads(post(Request(target, body.encode(), {name: value})))
    assert answer["loss"] == pytest.approx(0.937270, abs=1e-6)


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    for workers, threads in ((1, None), (2, "3"), (4, "1"), (64, "1")):
        made = serve.environment(settings.Settings(workers=workers), {})
        assert made["LOSSD_WORKERS"] == str(workers)
        assert made.get("NUMBA_NUM_THREADS") == threads
    told = serve.environment(settings.Settings(workers=2), {"NUMBA_NUM_THREADS": "5"})
    assert "NUMBA_NUM_THREADS" not in told


def test_a_greeting_puts_brackets_around_an_ipv6_address() -> None:
    assert "http://[::1]:80/v1" in serve.greeting("::1", 80)
