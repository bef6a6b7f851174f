"""``lossd serve``: its options are the settings, and it starts, tells, and stops as told."""

from __future__ import annotations

import itertools
import os
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from typer.testing import CliRunner

from service import settings
from service.cli import app, serve
from service.process import START_FAILED, cores
from tests.service.conftest import READY_WITHIN, ROOT

WIDE = {"COLUMNS": "500"}  # so that no word of the help is broken


def refusal(*arguments: str) -> str:
    """Text on stderr of a ``lossd serve`` that refuses to start."""
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == START_FAILED, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("name", sorted(settings.Settings.model_fields.keys() - settings.SECRETS))
def test_every_setting_is_an_option(name: str) -> None:
    result = CliRunner(env=WIDE).invoke(app, ["serve", "--help"])
    option = "--" + name.replace("_", "-")
    [line] = [line for line in result.stdout.splitlines() if f" {option} " in line]
    field = settings.Settings.model_fields[name]
    assert field.description is not None
    assert field.description in line
    assert not field.default or f"(default: {field.default})" in line
    assert settings.variable(name) in line


def test_help_has_panels_of_at_most_a_screen() -> None:
    lines = CliRunner(env={"COLUMNS": "100"}).invoke(app, ["serve", "--help"]).stdout.splitlines()
    tops = [at for at, line in enumerate(lines) if line.startswith("╭")]
    titles = [lines[at].strip("╭╮─ ") for at in tops]
    assert titles[1:] == [*serve._PANELS, "Sizes and memory"]
    assert max(later - at for at, later in itertools.pairwise([*tops, len(lines)])) < 40


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUMBA_NUM_THREADS", "0"),
        ("NUMBA_NUM_THREADS", "-1"),
        ("NUMBA_NUM_THREADS", "many"),
        ("NUMBA_NUM_THREADS", ""),
        ("NUMBA_THREADING_LAYER", "nonsense"),
        ("NUMBA_THREADING_LAYER_PRIORITY", "omp tbb"),
        ("NUMBA_DISABLE_JIT", "1"),
    ],
)
def test_a_variable_that_numba_cannot_use_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert f"{name} is {value!r}: it must be " in refusal("--port", "0")


@pytest.mark.parametrize("name", sorted(settings.SECRETS))
def test_a_secret_is_no_option(name: str) -> None:
    option = "--" + name.replace("_", "-")
    assert option not in CliRunner(env=WIDE).invoke(app, ["serve", "--help"]).stdout
    assert CliRunner().invoke(app, ["serve", option, "secret"]).exit_code == 2


def test_an_option_that_cannot_be_used_is_named() -> None:
    assert "--port is 'eighty'" in refusal("--port", "eighty")


def test_a_truth_is_a_flag() -> None:
    text = refusal("--allow-shared-memory", "--workers", "2")
    assert "--allow-shared-memory is 'True'" in text
    assert "single worker" in text


def test_a_variable_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSD_WORKERS", "0")
    assert "LOSSD_WORKERS is '0'" in refusal()


def test_a_secret_that_cannot_be_used_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSD_AUTH_TOKENS", "")
    assert "LOSSD_AUTH_TOKENS is set:" in refusal()


def test_an_unknown_option_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["serve", "--prot", "1"]).exit_code == 2


def test_a_port_that_is_taken_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}: Address already in use" in refusal("--port", port)


@pytest.mark.parametrize("host", ["no such host", "x" * 300])
def test_a_host_that_cannot_be_listened_on_is_refused(host: str) -> None:
    assert f"cannot listen on {host}" in refusal("--host", host)


@contextmanager
def greeted(*arguments: str, **environment: str) -> Iterator[list[str]]:
    """The words of the command that ``lossd serve`` says to paste, while it runs."""
    command = [sys.executable, "-m", "service.cli", "serve", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | environment
    ) as process:
        watch = threading.Timer(READY_WITHIN, process.kill)
        watch.start()
        assert process.stdout is not None
        try:
            yield next(shlex.split(line) for line in process.stdout if "curl" in line)
        finally:
            watch.cancel()
            process.terminate()
            assert process.wait(30) == 0


def pasted(words: list[str]) -> httpx.Response:
    """Answer of the server to a command of curl's."""
    options = dict(itertools.pairwise(words))
    headers = dict(
        value.split(": ", 1) for flag, value in itertools.pairwise(words) if flag == "-H"
    )
    transport = httpx.HTTPTransport(uds=options.get("--unix-socket"))
    with httpx.Client(transport=transport, trust_env=False) as client:
        [url] = [word for word in words if word.startswith("http")]
        return client.post(url, content=options["-d"], headers=headers)


def test_what_it_says_to_paste_is_answered_by_all_of_its_workers() -> None:
    """It says so once all are ready: so no worker that is asked is not."""
    with greeted("--workers", "2", "--port", "0", "--log-level", "warning") as words:
        for _ in range(20):
            assert pasted(words).json()["loss"] == pytest.approx(0.937270, abs=1e-6)


def test_what_it_says_to_paste_fits_a_unix_socket_and_tokens(tmp_path: Path) -> None:
    path = tmp_path / "my lossd.sock"
    with greeted("--uds", str(path), LOSSD_AUTH_TOKENS="one two") as words:
        assert pasted(words).status_code == 401
        words = [word.replace("TOKEN", "two") for word in words]
        assert pasted(words).json()["loss"] == pytest.approx(0.937270, abs=1e-6)
    assert not path.exists()


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    for workers, threads in ((1, "6"), (2, "3"), (4, "1"), (64, "1")):
        made = serve.environment(settings.Settings(workers=workers), {})
        assert made["LOSSD_WORKERS"] == str(workers)
        assert made.get("NUMBA_NUM_THREADS") == threads
    told = serve.environment(settings.Settings(workers=2), {"NUMBA_NUM_THREADS": "5"})
    assert "NUMBA_NUM_THREADS" not in told
    monkeypatch.setattr(cores, "available", lambda: 4)  # of a container
    made = serve.environment(settings.Settings(workers=2), {})
    assert made["NUMBA_NUM_THREADS"] == "2"


def test_threads_sleep_unless_told_to_spin() -> None:
    assert serve.environment(settings.Settings(), {})["OMP_WAIT_POLICY"] == "passive"
    assert "OMP_WAIT_POLICY" not in serve.environment(
        settings.Settings(), {"OMP_WAIT_POLICY": "active"}
    )


def test_a_greeting_puts_brackets_around_an_ipv6_address() -> None:
    assert "http://[::1]:80/v1" in serve.greeting(("::1", 80, 0, 0))
    assert "http://[::1]:80/v1" in serve.greeting(("::", 80, 0, 0))
    assert "curl --insecure https://[::1]:80/v1" in serve.greeting(("::1", 80, 0, 0), tls=True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (settings.SettingsError("LOSSD_PORT is 'x'"), "LOSSD_PORT is 'x'"),
        (ValueError("No threading layer could be loaded.\nHINT"), "set NUMBA_THREADING_LAYER"),
        (ImportError("no such module"), "no such module"),
    ],
)
def test_an_application_that_cannot_be_made_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, said: str
) -> None:
    def create(**_: object) -> None:
        raise error

    monkeypatch.setattr("service.app.create_app", create)
    with pytest.raises(SystemExit) as stopped:
        serve.application()
    assert stopped.value.code == START_FAILED
    assert said in caplog.text
