"""Whatever happens to a request, and whenever: nothing stays leased, nothing runs for nobody."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from kernels import steps
from kernels.steps import Work
from service import regimes
from service.app import create_app
from service.errors import Overloaded
from service.memory.budget import Budget, Lease
from service.request.body import Body
from service.request.operation import Call, Service
from service.settings import Settings
from tests.service import wire
from tests.service.conftest import Client, running, wait_until_ready

PATIENCE = 60  # seconds until a test that hangs fails
MIB = 2**20

SMALL: dict[str, wire.Array] = {"logits": np.eye(4, 5, dtype=np.float32), "labels": np.arange(4)}
LARGE: dict[str, wire.Array] = {
    "logits": np.random.default_rng(3).normal(0, 3, (2000, 1000)).astype(np.float32),
    "labels": np.arange(2000) % 1000,
}
BODIES = {
    f"{size}-{name}": (write(tensors), wire.MEDIA_TYPES[name])
    for size, tensors in (("small", SMALL), ("large", LARGE))
    for name, write in wire.BODIES.items()
    if (size, name) != ("large", "json")
}
BODIES["middle-json"] = (
    wire.json_body({"logits": np.ones((600, 150)), "labels": np.zeros(600, int)}),
    wire.JSON,
)


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Client, FastAPI]]:
    app = create_app(Settings(memory_bytes=256 * MIB, memory_wait_seconds=5), warm=lambda: None)
    with running(app) as client:
        wait_until_ready(client)
        for body, media_type in BODIES.values():  # compiles, or loads, the kernels
            assert client.send("/v1/cross_entropy", body, media_type).status_code == 200
        yield client, app


@pytest.fixture(autouse=True)
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """No body is streamed: ``test_streaming`` has those."""
    monkeypatch.setattr(regimes, "STREAMED_BODY_BYTES", 2**40)


class Request:
    """One request, its body in pieces: what it was sent, and what befalls it."""

    def __init__(self, app: FastAPI, body: bytes, media_type: str, piece: int = MIB) -> None:
        self.service: Service = app.state.service
        self.sent: list[MutableMapping[str, Any]] = []
        self.received = 0
        self.pieces = [body[at : at + piece] for at in range(0, len(body), piece)]
        self.leaves_at: int | None = None
        self.gone = asyncio.Event()
        self.may_receive: Callable[[int], bool] = lambda index: True
        self._app = app
        self._scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/cross_entropy",
            "query_string": b"",
            "headers": [
                (b"content-type", media_type.encode()),
                (b"content-length", str(len(body)).encode()),
            ],
        }

    async def run(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._app(self._scope, self._receive, self._send)

    async def _receive(self) -> MutableMapping[str, Any]:
        await asyncio.sleep(0)
        index = self.received
        if index == self.leaves_at:
            return {"type": "http.disconnect"}
        if index == len(self.pieces):
            await self.gone.wait()
            return {"type": "http.disconnect"}
        while not self.may_receive(index):
            await asyncio.sleep(0.001)
        self.received += 1
        more = index < len(self.pieces) - 1
        return {"type": "http.request", "body": self.pieces[index], "more_body": more}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await asyncio.sleep(0)
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def content(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


@asynccontextmanager
async def nothing_left(service: Service) -> AsyncIterator[None]:
    """At the end nothing is leased, at once, and nobody waits."""
    yield
    assert (service.budget.leased, service.budget.waiting) == (0, 0)
    # What still runs is over after its step.
    await service.transcode.call(lambda: None)
    await service.compute.call(lambda: None)
    assert (service.compute.waiting, service.transcode.waiting) == (0, 0)
    assert service.budget.leased == 0


@contextmanager
def freed_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At the end no body is held, though nothing is collected: leases end before a collection."""
    bodies: weakref.WeakSet[Body] = weakref.WeakSet()
    made = Body.__init__

    def noting(received: Body, *arguments: Any) -> None:
        bodies.add(received)
        made(received, *arguments)

    monkeypatch.setattr(Body, "__init__", noting)
    gc.collect()
    gc.disable()
    try:
        yield
        assert not list(bodies)
    finally:
        gc.enable()


@pytest.mark.parametrize("name", BODIES)
def test_a_failed_request_holds_its_body_no_longer_than_its_lease(
    started: tuple[Client, FastAPI], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, app = started
    body, media_type = BODIES[name]

    async def failed(request: Request) -> int | None:
        async with nothing_left(request.service):
            await request.run()
        return request.status

    async def test() -> None:
        piece = -(-len(body) // 5)
        for leaves_at in range(1, 6):
            request = Request(app, body, media_type, piece)
            request.leaves_at = leaves_at
            await failed(request)
        for option in (b"ignore_index=x", b"class_axis=7"):
            request = Request(app, body, media_type, piece)
            request._scope["query_string"] = option
            assert await failed(request) == 422

    with freed_at_once(monkeypatch):
        client.runner.run(test())


@pytest.mark.parametrize("format_", ["safetensors", "npz"])
def test_a_label_that_is_no_class_does_not_keep_its_body(
    started: tuple[Client, FastAPI], format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, app = started
    body = wire.BODIES[format_]({**LARGE, "labels": LARGE["labels"] + 1})

    async def test() -> None:
        request = Request(app, body, wire.MEDIA_TYPES[format_])
        async with nothing_left(request.service):
            await request.run()
        assert request.status == 422

    with freed_at_once(monkeypatch):
        client.runner.run(test())


@pytest.mark.parametrize("name", BODIES)
def test_a_client_may_leave_at_any_receive(
    started: tuple[Client, FastAPI], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, app = started
    body, media_type = BODIES[name]
    computed: list[int] = []
    made = steps.cross_entropy

    def counting(*arguments: Any, **options: Any) -> Work:
        computed.append(1)
        return made(*arguments, **options)

    async def test() -> None:
        piece = -(-len(body) // 5)
        for leaves_at in range(6):
            request = Request(app, body, media_type, piece)
            request.leaves_at = leaves_at
            async with nothing_left(request.service):
                await request.run()
            early = name.startswith("large-safe")
            assert leaves_at == len(request.pieces) or early or not computed
            assert request.status in ((200, 400) if leaves_at == len(request.pieces) else (400,))

    monkeypatch.setattr(steps, "cross_entropy", counting)
    client.runner.run(test())


def test_text_that_takes_long_is_read_in_a_lane(
    started: tuple[Client, FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, app = started
    threads: list[str] = []
    decode = Call.decoded

    def watched(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return decode(*arguments)

    monkeypatch.setattr(Call, "decoded", watched)
    monkeypatch.setattr(regimes, "AT_ONCE_SECONDS", -1)

    async def test() -> None:
        request = Request(app, *BODIES["middle-json"])
        async with nothing_left(request.service):
            await request.run()
        assert request.status == 200

    client.runner.run(test())
    assert len(threads) == 2
    assert threads[0] != threads[1]


@pytest.mark.parametrize("name", BODIES)
def test_a_request_may_be_cancelled_at_any_await(
    started: tuple[Client, FastAPI], name: str
) -> None:
    client, app = started
    body, media_type = BODIES[name]

    async def cancelled(turns: int) -> bool:
        request = Request(app, body, media_type, -(-len(body) // 3))
        async with nothing_left(request.service):
            task = asyncio.ensure_future(request.run())
            for _ in range(turns):
                if task.done():
                    break
                # From some turn on, it waits for other threads.
                await asyncio.sleep(0 if turns < 25 else 0.0005)
            done = task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return done and request.status == 200

    async def test() -> None:
        turns = 0
        while not await cancelled(turns):
            turns += 1 if turns < 25 else 3
            assert turns < 2000

    client.runner.run(test())


@pytest.mark.parametrize("name", BODIES)
def test_any_lease_may_be_refused(
    started: tuple[Client, FastAPI], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, app = started
    body, media_type = BODIES[name]
    grant = Budget.grant
    asked = 0

    async def test() -> None:
        nonlocal asked
        for refused in range(20):
            asked = 0

            async def refusing(budget: Budget, *arguments: Any, refused: int = refused) -> None:
                nonlocal asked
                asked += 1
                if asked == refused:
                    raise Overloaded("no more")
                await grant(budget, *arguments)

            monkeypatch.setattr(Budget, "grant", refusing)
            request = Request(app, body, media_type)
            async with nothing_left(request.service):
                await request.run()
            assert request.status == (503 if 0 < refused <= asked else 200)
            if refused > asked:
                return
        raise AssertionError("it never ends")

    client.runner.run(test())


class Gate:
    """Work that waits before each step until it is let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken = 0
        self.go_on = threading.Semaphore(0)
        made = steps.cross_entropy

        def gated(*arguments: Any, **options: Any) -> Work:
            work = made(*arguments, **options)
            return work._replace(steps=self._steps(work.steps))

        monkeypatch.setattr(steps, "cross_entropy", gated)

    def _steps(self, steps: Generator[int, None, Any]) -> Generator[int, None, Any]:
        for needed in steps:
            yield needed
            self.taken += 1
            assert self.go_on.acquire(timeout=PATIENCE)
        return {"loss": np.zeros((), np.float32)}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


MANY = wire.safetensors_body(  # some 100 MB, and three steps
    {"logits": np.zeros((25_000, 1000), np.float32), "labels": np.zeros(25_000, np.int64)}
)


def test_a_client_that_leaves_while_it_is_computed_costs_one_step_more(
    started: tuple[Client, FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, app = started
    gate = Gate(monkeypatch)

    async def test() -> None:
        request = Request(app, MANY, wire.SAFETENSORS)
        async with nothing_left(request.service):
            task = asyncio.ensure_future(request.run())
            await until(lambda: gate.taken == 1 and request.received == len(request.pieces))
            assert request.service.budget.leased >= len(MANY)
            request.gone.set()
            await task
            assert request.status != 200
            assert request.service.budget.leased == 0
            for _ in range(10):
                gate.go_on.release()

    client.runner.run(test())
    assert gate.taken == 1


def test_work_begins_before_the_body_has_come(
    started: tuple[Client, FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, app = started
    gate = Gate(monkeypatch)
    for _ in range(10):
        gate.go_on.release()

    async def test() -> None:
        request = Request(app, MANY, wire.SAFETENSORS)
        last = len(request.pieces) - 1
        # The last piece comes once two of the three steps are taken.
        request.may_receive = lambda index: index < last or gate.taken == 2
        async with nothing_left(request.service):
            task = asyncio.ensure_future(request.run())
            await until(lambda: request.status is not None)
            request.gone.set()
            await task
        assert request.status == 200
        assert gate.taken == 3

    client.runner.run(test())


def test_a_body_that_ends_early_is_refused_though_it_was_computed_with(
    started: tuple[Client, FastAPI],
) -> None:
    client, app = started

    async def test() -> None:
        request = Request(app, MANY, wire.SAFETENSORS)
        del request.pieces[-1]
        async with nothing_left(request.service):
            await request.run()
        assert request.status == 400

    client.runner.run(test())


def test_nothing_of_another_client_can_be_read(started: tuple[Client, FastAPI]) -> None:
    client, app = started
    service: Service = app.state.service
    logits = LARGE["logits"].copy()
    secret = wire.safetensors_body(
        {"logits": np.full_like(logits, np.nan), "labels": LARGE["labels"]}
    )
    own = wire.safetensors_body(LARGE)
    expected = client.send("/v1/cross_entropy", own, wire.SAFETENSORS).content

    async def test() -> None:
        for piece in (1000_003, len(own) // 2, len(own)):
            filling = Request(app, secret, wire.SAFETENSORS)
            await asyncio.gather(filling.run())
            # The next body lands where the secret one was.
            assert filling.status == 200
            assert service.budget.idle >= len(secret)
            request = Request(app, own, wire.SAFETENSORS, piece)
            request.may_receive = lambda index, request=request: service.budget.idle == 0  # type: ignore[misc]
            await request.run()
            assert request.content == expected
        short = Request(app, own, wire.SAFETENSORS)
        short.leaves_at = len(short.pieces) - 1
        await short.run()
        assert short.status != 200

    client.runner.run(test())


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("stage", [Call.decoded, Call.work, Call.encoded, Lease.memory])
def test_memory_that_the_system_does_not_give_is_a_503(
    started: tuple[Client, FastAPI],
    name: str,
    stage: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, app = started
    body, media_type = BODIES[name]
    missed: list[int] = []

    def lacking(*arguments: Any) -> Any:
        missed.append(1)
        raise MemoryError

    owner = Lease if stage is Lease.memory else Call
    monkeypatch.setattr(owner, stage.__name__, lacking)

    async def test() -> None:
        request = Request(app, body, media_type)
        async with nothing_left(request.service):
            await request.run()
        assert request.status == (503 if missed else 200)

    with freed_at_once(monkeypatch):
        client.runner.run(test())


def test_decoding_that_takes_too_long_is_given_up(
    started: tuple[Client, FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who waits for it, and by the thread itself."""
    client, app = started
    service: Service = app.state.service
    patient, ended = service.settings, threading.Event()
    decoded = Call.decoded

    def slow(call: Call, body: memoryview, until: float = math.inf) -> Any:
        if until - time.perf_counter() < 1:  # on the event loop, or in a hurry
            time.sleep(0.01)
        try:
            return decoded(call, body, until)
        finally:
            ended.set()

    monkeypatch.setattr(Call, "decoded", slow)
    monkeypatch.setattr(service, "settings", patient.model_copy(update={"compute_seconds": 0.001}))
    body, media_type = BODIES["middle-json"]
    answer = client.send("/v1/cross_entropy", body, media_type)
    assert (answer.status_code, answer.json()["title"]) == (503, "The computation took too long")
    assert ended.wait(PATIENCE)
    assert service.budget.leased == 0
