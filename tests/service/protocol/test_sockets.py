"""The same over real sockets, on both event loops: and without the protocol, only slower."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest
from uvicorn import Config, Server

from service.codecs import CODECS
from service.errors import Disconnected
from service.protocol import Http, Limits
from service.request import body
from tests.service.protocol.apps import answer
from tests.service.protocol.messages import Answers

PATIENCE = 60  # seconds until a test that hangs fails
LARGE = 2**26
LOOPS = ["asyncio", *(["uvloop"] if sys.platform != "win32" else [])]
NPZ = next(codec for codec in CODECS if codec.name == "npz")


class Unleased:
    def memory(self, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.empty(size, np.uint8)

    def expect_more(self) -> None: ...

    async def grow(self, size: int) -> None:
        pass


class Digest:
    """Answers with the digest of the body, received as the service receives it."""

    def __init__(self) -> None:
        self.landed = 0
        self.gone = threading.Event()
        self.asked = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/refuse":
            return await answer(send, b"no", 413)
        if scope["path"] == "/long":
            return await answer(send, bytes(LARGE))
        landing = scope.get("extensions", {}).get("lossd.landing")
        self.landed += landing is not None
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        length = int(lengths[0]) if lengths else None
        self.asked.set()
        try:
            incoming = await body.start(receive, landing, NPZ, length, 2**30, Unleased())
            digest = hashlib.sha256(await incoming.all()).hexdigest()
        except Disconnected:
            return self.gone.set()
        await answer(send, digest.encode())


class Running:
    """A server in a thread, and what connects to it."""

    def __init__(self, loop: str, http: Any) -> None:
        self.app = Digest()
        self.stock = http == "httptools"
        config = Config(
            self.app, loop=cast(Any, loop), http=http, lifespan="off", log_config=None, ws="none"
        )
        self.server = Server(config)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))
        self.thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.socket.getsockname(), timeout=PATIENCE)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()

    def connections(self) -> int:
        return len(self.server.server_state.connections)


@pytest.fixture(scope="module", params=[*LOOPS, "stock"])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    stock = request.param == "stock"
    server = Running("auto" if stock else request.param, "httptools" if stock else Http(Limits()))
    yield server
    server.stop()


@pytest.fixture(scope="module", params=LOOPS)
def hasty(request: pytest.FixtureRequest) -> Iterator[Running]:
    """A server without any patience."""
    limits = Limits(header_seconds=0.5, body_grace_seconds=0.3, send_seconds=0.3)
    server = Running(request.param, Http(limits))
    yield server
    server.stop()


def head(length: int, *fields: str, path: str = "/") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {length}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def read(connection: socket.socket, count: int = 1) -> Answers:
    received = b""
    while True:
        try:
            answers = Answers(received)
            if len(answers.statuses) >= count:
                return answers
        except (AssertionError, ValueError, IndexError):
            pass  # not whole yet
        piece = connection.recv(65536)
        assert piece, received[:1000]
        received += piece


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def content(size: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def test_bodies_land_bit_for_bit_and_the_connection_goes_on(running: Running) -> None:
    before = running.app.landed
    sizes = [LARGE, 10, 100_000, 0, LARGE // 4 + 1]
    bodies = [content(size, seed) for seed, size in enumerate(sizes)]
    with running.connect() as connection:
        for sent in bodies:
            connection.sendall(head(len(sent)) + sent)
            assert read(connection).bodies == [hashlib.sha256(sent).hexdigest().encode()]
        # And all at once, one behind another.
        sender = threading.Thread(
            target=connection.sendall, args=[b"".join(head(len(sent)) + sent for sent in bodies)]
        )
        sender.start()
        answers = read(connection, count=len(bodies))
        sender.join()
    assert answers.bodies == [hashlib.sha256(sent).hexdigest().encode() for sent in bodies]
    assert running.app.landed - before == (0 if running.stock else 6)


async def test_many_connections_land_at_once(running: Running) -> None:
    async def one(seed: int) -> None:
        reader, writer = await asyncio.open_connection(*running.socket.getsockname())
        sent = content(300_000 + seed, seed)
        for _ in range(3):
            writer.write(head(len(sent)) + sent)
            await writer.drain()
            received = await reader.readuntil(hashlib.sha256(sent).hexdigest().encode())
            assert received.startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*map(one, range(32)))


@pytest.mark.parametrize("sent", [0, 1000, 5_000_000])
def test_a_client_that_goes_away_in_mid_body(running: Running, sent: int) -> None:
    running.app.gone.clear()
    running.app.asked.clear()
    with running.connect() as connection:
        connection.sendall(head(LARGE) + bytes(sent))
        assert running.app.asked.wait(PATIENCE)
    assert running.app.gone.wait(PATIENCE)
    eventually(lambda: not running.connections())


def test_an_early_answer_is_read_by_who_goes_on_sending(running: Running) -> None:
    if running.stock:
        pytest.skip("uvicorn closes at once, and the client may see a reset instead")
    with running.connect() as connection:
        connection.sendall(head(LARGE, path="/refuse") + bytes(2**24))
        answers = read(connection)
        assert answers.statuses == [413]
        assert answers.headers[0]["connection"] == "close"
    eventually(lambda: not running.connections())


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HT", head(10) + b"x", head(LARGE) + bytes(200_000)],
    ids=["silent", "header", "small body", "large body"],
)
def test_who_stalls_is_cut_off(hasty: Running, sent: bytes) -> None:
    with hasty.connect() as connection:
        connection.sendall(sent)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        assert received[9:12] == (b"408" if sent else b"")
    eventually(lambda: not hasty.connections())


def test_who_does_not_read_is_cut_off(hasty: Running) -> None:
    with hasty.connect() as connection:
        connection.sendall(head(0, path="/long"))
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        eventually(lambda: not hasty.connections())


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what it holds")
def test_the_system_holds_little_for_who_does_not_read(running: Running) -> None:
    if running.stock:
        pytest.skip("uvicorn leaves it to the system, which keeps megabytes")
    import fcntl

    with running.connect() as connection:
        connection.sendall(head(0, path="/long"))
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        [served] = cast(Any, running.server.server_state.connections)
        eventually(lambda: bool(served.flow.write_paused))
        unsent = fcntl.ioctl(served.transport.get_extra_info("socket").fileno(), 0x894B, bytes(4))
        assert int.from_bytes(unsent, sys.byteorder) < 2**17
    eventually(lambda: not running.connections())
