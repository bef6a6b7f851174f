"""Whatever happens to a request, and whenever: nothing stays leased, nothing runs for nobody."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
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
from service.request.operation import Call, Service
from service.settings import Settings
from tests.service import wire
from tests.service.conftest import ready
from tests.service.request.harness import (
    MIB,
    PATIENCE,
    Gate,
    Request,
    freed_at_once,
    nothing_left,
    until,
)

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
async def app() -> AsyncIterator[FastAPI]:
    made = create_app(Settings(memory_bytes=256 * MIB, memory_wait_seconds=5), warm=lambda: None)
    async with ready(made):
        for body, media_type in BODIES.values():  # compiles, or loads, the kernels
            assert (await answered(made, body, media_type)).status == 200
        yield made


async def answered(app: FastAPI, body: bytes, media_type: str) -> Request:
    """A request and its answer, or what was leased and not given back."""
    request = Request(app, body, media_type)
    async with nothing_left(request.service):
        await request.run()
    return request


@pytest.fixture(autouse=True)
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """No body is streamed: ``test_streaming`` has those."""
    monkeypatch.setattr(regimes, "STREAMED_BODY_BYTES", 2**40)


@pytest.mark.parametrize("name", BODIES)
async def test_a_failed_request_holds_its_body_no_longer_than_its_lease(
    app: FastAPI, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, media_type = BODIES[name]

    async def failed(request: Request) -> int | None:
        async with nothing_left(request.service):
            await request.run()
        return request.status

    with freed_at_once(monkeypatch):
        piece = -(-len(body) // 5)
        for leaves_at in range(1, 6):
            request = Request(app, body, media_type, piece)
            request.leaves_at = leaves_at
            await failed(request)
        for option in (b"ignore_index=x", b"class_axis=7"):
            request = Request(app, body, media_type, piece)
            request._scope["query_string"] = option
            assert await failed(request) == 422


@pytest.mark.parametrize("format_", ["safetensors", "npz"])
async def test_a_label_that_is_no_class_does_not_keep_its_body(
    app: FastAPI, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = wire.BODIES[format_]({**LARGE, "labels": LARGE["labels"] + 1})

    with freed_at_once(monkeypatch):
        request = Request(app, body, wire.MEDIA_TYPES[format_])
        async with nothing_left(request.service):
            await request.run()
        assert request.status == 422


@pytest.mark.parametrize("name", BODIES)
async def test_a_client_may_leave_at_any_receive(
    app: FastAPI, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, media_type = BODIES[name]
    computed: list[int] = []
    made = steps.cross_entropy

    def counting(*arguments: Any, **options: Any) -> Work:
        computed.append(1)
        return made(*arguments, **options)

    monkeypatch.setattr(steps, "cross_entropy", counting)
    piece = -(-len(body) // 5)
    for leaves_at in range(6):
        request = Request(app, body, media_type, piece)
        request.leaves_at = leaves_at
        async with nothing_left(request.service):
            await request.run()
        early = name.startswith("large-safe")
        assert leaves_at == len(request.pieces) or early or not computed
        at_once = leaves_at == len(request.pieces) and name.startswith("small")
        assert request.status == (200 if at_once else 400)


async def test_text_that_takes_long_is_read_in_a_lane(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    decode = Call.decoded

    def watched(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return decode(*arguments)

    monkeypatch.setattr(Call, "decoded", watched)
    monkeypatch.setattr(regimes, "AT_ONCE_SECONDS", -1)

    request = Request(app, *BODIES["middle-json"])
    async with nothing_left(request.service):
        await request.run()
    assert request.status == 200
    assert len(threads) == 2
    assert threads[0] != threads[1]


@pytest.mark.parametrize("name", BODIES)
async def test_a_request_may_be_cancelled_at_any_await(app: FastAPI, name: str) -> None:
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

    turns = 0
    while not await cancelled(turns):
        turns += 1 if turns < 25 else 3
        assert turns < 2000


@pytest.mark.parametrize("name", BODIES)
async def test_any_lease_may_be_refused(
    app: FastAPI, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, media_type = BODIES[name]
    grant = Budget.grant
    asked = 0

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


MANY = wire.safetensors_body(  # some 100 MB, and three steps
    {"logits": np.zeros((25_000, 1000), np.float32), "labels": np.zeros(25_000, np.int64)}
)


async def test_a_client_that_leaves_while_it_is_computed_costs_one_step_more(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)

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
    assert gate.taken == 1


async def test_work_begins_before_the_body_has_come(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    for _ in range(10):
        gate.go_on.release()

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


async def test_a_body_that_ends_early_is_refused_though_it_was_computed_with(
    app: FastAPI,
) -> None:

    request = Request(app, MANY, wire.SAFETENSORS)
    del request.pieces[-1]
    async with nothing_left(request.service):
        await request.run()
    assert request.status == 400


async def test_nothing_of_another_client_can_be_read(app: FastAPI) -> None:
    service: Service = app.state.service
    logits = LARGE["logits"].copy()
    secret = wire.safetensors_body(
        {"logits": np.full_like(logits, np.nan), "labels": LARGE["labels"]}
    )
    own = wire.safetensors_body(LARGE)
    expected = (await answered(app, own, wire.SAFETENSORS)).content

    for piece in (1000_003, len(own) // 2, len(own)):
        filling = Request(app, secret, wire.SAFETENSORS)
        await asyncio.gather(filling.run())
        # The next body lands where the secret one was.
        assert filling.status == 200
        assert service.budget.idle.size >= len(secret)
        request = Request(app, own, wire.SAFETENSORS, piece)
        request.may_receive = lambda index, request=request: service.budget.idle.size == 0  # type: ignore[misc]
        await request.run()
        assert request.content == expected
    short = Request(app, own, wire.SAFETENSORS)
    short.leaves_at = len(short.pieces) - 1
    await short.run()
    assert short.status != 200


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("stage", [Call.decoded, Call.work, Call.encoded, Lease.memory])
async def test_memory_that_the_system_does_not_give_is_a_503(
    app: FastAPI,
    name: str,
    stage: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body, media_type = BODIES[name]
    missed: list[int] = []

    def lacking(*arguments: Any) -> Any:
        missed.append(1)
        raise MemoryError

    owner = Lease if stage is Lease.memory else Call
    monkeypatch.setattr(owner, stage.__name__, lacking)

    with freed_at_once(monkeypatch):
        request = Request(app, body, media_type)
        async with nothing_left(request.service):
            await request.run()
        assert request.status == (503 if missed else 200)


async def test_decoding_that_takes_too_long_is_given_up(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who waits for it, and by the thread itself."""
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
    request = await answered(app, body, media_type)
    title = json.loads(request.content)["title"]
    assert (request.status, title) == (503, "The computation took too long")
    assert ended.wait(PATIENCE)
    assert service.budget.leased == 0
