"""Real processes: told to stop, killed, replaced. Nothing that was begun is lost.

A request is known to have begun once the server asks for its body, with "100 Continue".
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest

import kernels
from benchmarks.server import Server, serving
from service.cli.listening import is_ready
from tests.service import wire
from tests.service.cases import worked
from tests.service.conftest import ROOT
from tests.service.process.workers import PATIENCE, state, until, workers

GRACE = 5  # seconds that requests are given to end: those that can end do, on a busy machine too

BODY = wire.npz_body(worked())


class Slow:
    """A client that sends half of its request's body, and the rest when it is told to."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.connection = socket.create_connection(address, timeout=PATIENCE)
        head = (
            "POST /v1/cross_entropy HTTP/1.1\r\nHost: lossd\r\nConnection: close\r\n"
            "Expect: 100-continue\r\n"
            f"Content-Type: {wire.NPZ}\r\nContent-Length: {len(BODY)}\r\n\r\n"
        )
        self.connection.sendall(head.encode())
        assert self.connection.recv(100).startswith(b"HTTP/1.1 100 ")
        self.connection.sendall(BODY[: len(BODY) // 2])

    def rest(self) -> None:
        with suppress(OSError):  # which the answer, or that there is none, tells as well
            self.connection.sendall(BODY[len(BODY) // 2 :])

    def status(self) -> int | None:
        """The status of the answer, after which the server closes; ``None`` where there is none."""
        answer = b""
        with self.connection, suppress(ConnectionError):
            answer = b"".join(iter(lambda: self.connection.recv(65536), b""))
        return int(answer.split(b" ", 2)[1]) if answer else None


def refused(address: tuple[str, int]) -> bool:
    """True if nobody listens at ``address`` any more."""
    try:
        socket.create_connection(address, timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass
    return False


def unread(address: tuple[str, int], kept: ExitStack) -> None:
    """Ask for an answer that no system's buffers hold, and read no more than that it has begun."""
    connection = kept.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(address)
    body = wire.safetensors_body({"logits": np.zeros((4096, 4096), np.float32)})
    head = (
        "POST /v1/softmax HTTP/1.1\r\nHost: lossd\r\n"
        f"Content-Type: {wire.SAFETENSORS}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    assert connection.recv(12) == b"HTTP/1.1 200"


def kept_alive(address: tuple[str, int], kept: ExitStack) -> socket.socket:
    """A connection on which a request was answered, and another may be sent."""
    connection = kept.enter_context(socket.create_connection(address, timeout=PATIENCE))
    ask(connection)
    return connection


def ask(connection: socket.socket) -> bytes:
    """The whole answer to a small request."""
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: lossd\r\n\r\n")
    answer = b""
    while not answer.endswith(b"}\n"):
        part = connection.recv(65536)
        assert part, "it was closed without an answer"
        answer += part
    assert answer.startswith(b"HTTP/1.1 200 ")
    return answer.lower()


def stop(server: Server, kept: ExitStack, number: int = signal.SIGTERM) -> None:
    """A signal at any time: what was begun is answered, and what never ends does not keep it up."""
    known, unknown = kept_alive(server.address, kept), kept_alive(server.address, kept)
    honest, stuck = Slow(server.address), Slow(server.address)
    for slow in (honest, stuck):
        kept.callback(slow.connection.close)
    idle = kept.enter_context(socket.create_connection(server.address, timeout=PATIENCE))
    unread(server.address, kept)
    os.kill(server.process, number)
    # What is on its way is answered, and one answer says that it is the last.
    until(lambda: b"connection: close" in ask(known))
    until(lambda: refused(server.address))
    assert unknown.recv(1) == b""
    honest.rest()
    assert honest.status() == 200
    assert idle.recv(1) == b""
    assert stuck.status() == 503
    until(lambda: state(server.process) == "Z")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_one_process_ends_as_told(number: int) -> None:
    """With status 0, or else the context manager raises."""
    with ExitStack() as kept, serving("--shutdown-seconds", str(GRACE)) as server:
        stop(server, kept, number)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_worker_is_replaced_and_takes_only_its_own_requests_along() -> None:
    options = ("--workers", "2", "--shutdown-seconds", str(GRACE))
    with ExitStack() as kept, serving(*options) as server:
        both = workers(server.process)
        assert len(both) == 2
        begun = [Slow(server.address) for _ in range(12)]
        os.kill(both[0], signal.SIGKILL)
        until(lambda: state(both[0]) == "Z")
        for slow in begun[1::2]:
            slow.rest()
        # Until there is another, and while that one compiles, and afterwards.
        asked = 0
        with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
            while asked < 20 or len(workers(server.process)) < 2:
                answer = client.post(
                    f"{server.url}/v1/cross_entropy",
                    content=BODY,
                    headers={"content-type": wire.NPZ, "connection": "close"},
                )
                assert answer.status_code == 200
                asked += 1
        for slow in begun[::2]:
            slow.rest()
        statuses = [slow.status() for slow in begun]
        assert set(statuses) <= {200, None}
        assert statuses.count(200) >= 1
        assert both[1] in workers(server.process)
        # One that says nothing does not keep others from being replaced.
        os.kill(both[1], signal.SIGSTOP)
        [new] = set(workers(server.process)) - set(both)
        os.kill(new, signal.SIGKILL)
        until(lambda: bool(set(workers(server.process)) - {*both, new}))
        assert state(both[1]) == "T"
        os.kill(both[1], signal.SIGCONT)
        stop(server, kept)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_with_their_parent() -> None:
    # Which says that the status is not 0.
    with suppress(RuntimeError), serving("--workers", "2") as server:
        both = workers(server.process)
        begun = Slow(server.address)
        os.kill(server.process, signal.SIGKILL)
        until(lambda: refused(server.address))
        begun.rest()
        assert begun.status() == 200
        until(lambda: all(state(worker) == "Z" for worker in both))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_obeyed_though_a_worker_died_while_it_started(number: int) -> None:
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        until(lambda: len(workers(process.pid)) == 2)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
        os.kill(process.pid, number)
        assert process.wait(PATIENCE / 2) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="sets a pipe's size")
def test_a_log_that_nobody_reads_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Nor does a standard output: the pipes are full before the first line."""
    path = tmp_path / "lossd.sock"
    command = [sys.executable, "-m", "service.cli", "serve", "--uds", str(path)]
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"x" * 4096)
    with subprocess.Popen(command, cwd=ROOT, stdout=writing, stderr=writing) as process:
        until(lambda: is_ready(str(path)))
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            for _ in range(100):
                assert client.get("http://lossd/v2").status_code == 200
        process.terminate()
        assert process.wait(PATIENCE) == 0
    os.close(writing)
    os.close(reading)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_no_standard_file_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "lossd.sock"
    command = f'exec "{sys.executable}" -m service.cli serve --uds "{path}" <&- >&- 2>&-'
    with subprocess.Popen(["sh", "-c", command], cwd=ROOT) as process:
        until(lambda: is_ready(str(path)) or process.poll() is not None)
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_are_renewed_one_by_one_and_read_their_tokens_anew(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("old\nboth\n")
    options = ("--workers", "2", "--auth-token-file", str(file))
    with serving(*options) as server, httpx.Client(trust_env=False, timeout=PATIENCE) as client:

        def status(token: str) -> int | None:
            headers = {"authorization": f"Bearer {token}", "connection": "close"}
            # A worker that ends closes connections on which no request has come yet.
            with suppress(httpx.TransportError):
                return client.get(f"{server.url}/v2", headers=headers).status_code
            return None

        def renewed() -> bool:
            assert status("both") in (200, None)
            both = set(workers(server.process))
            return len(both) == 2 and not both & before

        before = set(workers(server.process))
        file.write_text("new\nboth\n")
        os.kill(server.process, signal.SIGHUP)
        until(renewed)
        assert {status("old") for _ in range(10)} == {401}
        assert {status("new") for _ in range(10)} == {200}


def others_run_during(call: Callable[[], object]) -> bool:
    """True if another thread runs in the middle of ``call``, though nothing yields to it."""
    inside = seen = False

    def work() -> None:
        nonlocal inside
        inside = True
        call()
        inside = False

    before = sys.getswitchinterval()
    sys.setswitchinterval(PATIENCE)
    thread = threading.Thread(target=work)
    try:
        thread.start()
        while thread.is_alive():
            seen |= inside
            time.sleep(0.0001)
    finally:
        sys.setswitchinterval(before)
    return seen


def test_a_worker_whose_kernel_runs_long_still_says_that_it_lives() -> None:
    """Or the supervisor kills it: so while a kernel runs, it must not hold Python's lock."""
    logits, labels = np.zeros((2048, 8192), np.float32), np.zeros(2048, np.int64)
    assert others_run_during(lambda: kernels.cross_entropy(logits, labels))
    assert not others_run_during(lambda: sum(range(10**6)))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_that_fails_is_not_tried_again(workers: str) -> None:
    """Neither by uvicorn's supervisor nor, to judge by the status, by any other."""
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--workers", workers]
    ended = subprocess.run(
        [*command, "--auth-token-file", "no/such/file"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 3
    assert "LOSSD_AUTH_TOKEN_FILE no/such/file cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr
