"""Bodies computed in memory that they do not fit into: the same answers, and nothing else held."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from fastapi import FastAPI

from kernels import OUTPUTS, dtypes
from service import regimes
from service.app import create_app
from service.errors import Overloaded
from service.memory import sliding
from service.memory.budget import Budget
from service.memory.pages import HUGE
from service.request import exchange, plan
from service.request.operation import Service
from service.request.plan import Plan, Streamed, Whole
from service.settings import Settings
from tests import zoo
from tests.service import wire
from tests.service.conftest import Client, running, serving, wait_until_ready
from tests.service.request.test_computation import (
    PATIENCE,
    Gate,
    Request,
    freed_at_once,
    nothing_left,
    until,
)

MIB = 2**20
BUDGET = 64 * MIB
RANDOM = np.random.default_rng(11)

pytestmark = pytest.mark.skipif(not sliding.available(), reason="this system moves no pages")


def many(rows: int = 4007, classes: int = 1501) -> dict[str, wire.Array]:
    """24 MB of rows that no step, page or piece is a multiple of."""
    logits = RANDOM.normal(0, 3, (rows, classes)).astype(np.float32)
    return {"logits": logits, "labels": RANDOM.integers(0, classes, rows)}


MANY = many()
BODY = wire.safetensors_body(MANY)
HELD = 8 * MIB  # at most, for any of these bodies' lengths


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Client, FastAPI]]:
    app = create_app(Settings(memory_bytes=2 * BUDGET, memory_wait_seconds=5), warm=lambda: None)
    with running(app) as client:
        wait_until_ready(client)
        yield client, app


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies of 8 MB are large ones, in steps of half a MiB."""
    monkeypatch.setattr(regimes, "STREAMED_BODY_BYTES", 2**23)
    monkeypatch.setattr(regimes, "STREAMED_STEP_BYTES", 2**19)
    monkeypatch.setattr(regimes, "STREAMED_AHEAD_BYTES", 3 * 2**19)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans of large bodies."""
    plans: list[Plan] = []
    made = plan.plan_of_head

    def planning(*arguments: Any) -> Plan:
        plans.append(made(*arguments))
        return plans[-1]

    monkeypatch.setattr(exchange, "plan_of_head", planning)
    return plans


def asked(app: FastAPI, body: bytes = BODY, query: bytes = b"", piece: int = 300_007) -> Request:
    request = Request(app, body, wire.SAFETENSORS, piece)
    request._scope["query_string"] = query
    return request


def answered(client: Client, app: FastAPI, body: bytes, query: bytes = b"") -> bytes:
    request = asked(app, body, query)

    async def test() -> None:
        async with nothing_left(request.service):
            task = asyncio.ensure_future(request.run())
            await until(lambda: task.done() or request.status is not None)
            request.gone.set()
            await task

    client.runner.run(test())
    assert request.status == 200, request.content
    return request.content


CASES: dict[str, tuple[dict[str, wire.Array], bytes]] = {
    "all outputs": (MANY, b"outputs=" + ",".join(OUTPUTS).encode()),
    "smoothed": (MANY, b"label_smoothing=0.1&reduction=none"),
    "weighted": (
        {
            **MANY,
            "weight": RANDOM.uniform(0, 2, 1501),
            "sample_weight": RANDOM.uniform(0, 2, 4007),
        },
        b"reduction=sum",
    ),
    "large weights": (
        {
            "logits": RANDOM.normal(0, 3, (300, 20_011)).astype(np.float32),
            "labels": RANDOM.integers(0, 20_011, 300),
            "weight": RANDOM.uniform(0, 2, 20_011),
        },
        b"",
    ),
    "images": (
        {
            "logits": RANDOM.normal(0, 3, (40, 19, 90, 91)).astype(np.float32),
            "labels": RANDOM.integers(0, 19, (40, 90, 91)),
        },
        b"outputs=loss,per_element,rank",
    ),
    "channels last": (
        {
            "logits": RANDOM.normal(0, 3, (40, 90, 91, 19)).astype(np.float32),
            "labels": RANDOM.integers(0, 19, (40, 90, 91)).astype(np.int64),
        },
        b"class_axis=-1",
    ),
}


def streamed(planned: list[Plan]) -> Streamed:
    """The only plan that was made: to stream."""
    [plan] = planned
    assert isinstance(plan, Streamed)
    return plan


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_as_in_memory_of_the_whole(
    started: tuple[Client, FastAPI],
    planned: list[Plan],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    client, app = started
    tensors, query = CASES[name]
    body = wire.safetensors_body(tensors)
    got = answered(client, app, body, query)
    plan = streamed(planned)
    assert plan.held <= len(body) // 2
    monkeypatch.setattr(regimes, "STREAMED_BODY_BYTES", 2**40)
    assert got == answered(client, app, body, query)
    assert len(planned) == 1


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=lambda dtype: dtype.name)
def test_every_type_of_logits(
    started: tuple[Client, FastAPI],
    planned: list[Plan],
    monkeypatch: pytest.MonkeyPatch,
    dtype: dtypes.DType,
) -> None:
    client, app = started
    example = zoo.example((8007, 1001), 1, dtype, "plain")
    logits, labels, _ = example.lying(np.asarray)
    body = wire.safetensors_body({"logits": logits, "labels": labels.astype(np.int64)})
    got = answered(client, app, body)
    streamed(planned)
    monkeypatch.setattr(regimes, "STREAMED_BODY_BYTES", 2**40)
    assert got == answered(client, app, body)


@pytest.mark.parametrize("cut", [3, 8, 9, 100])
def test_a_beginning_that_comes_in_parts_is_waited_for(
    started: tuple[Client, FastAPI], planned: list[Plan], cut: int
) -> None:
    client, app = started
    request = asked(app)
    first, *others = request.pieces
    request.pieces = [first[:cut], first[cut : cut + 8], first[cut + 8 :], *others]

    async def test() -> None:
        async with nothing_left(request.service):
            task = asyncio.ensure_future(request.run())
            await until(lambda: task.done() or request.status is not None)
            request.gone.set()
            await task
        assert request.status == 200

    client.runner.run(test())
    streamed(planned)


NOT_STREAMED: dict[str, dict[str, wire.Array]] = {
    "labels last": {"logits": np.zeros((3000, 1000)), "labels": np.zeros(3000, np.int32)},
    "one long row": {
        "logits": np.zeros((1, 3_000_000), np.float32),
        "labels": np.zeros(1, np.int64),
    },
    "probabilities": {
        "logits": np.zeros((1500, 1001), np.float32),
        "labels": np.full((1500, 1001), 1 / 1001),
    },
    "huge images": {
        "logits": np.zeros((2, 30, 200, 201), np.float32),
        "labels": np.zeros((2, 200, 201), np.int64),
    },
}


@pytest.mark.parametrize("name", NOT_STREAMED)
def test_what_needs_all_of_its_logits_has_memory_for_them(
    started: tuple[Client, FastAPI],
    planned: list[Plan],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    client, app = started
    body = wire.safetensors_body(NOT_STREAMED[name])
    got = answered(client, app, body)
    [plan] = planned
    assert isinstance(plan, Whole)
    monkeypatch.setattr(regimes, "STREAMED_BODY_BYTES", 2**40)
    assert got == answered(client, app, body)


def test_where_no_pages_can_be_moved_all_is_as_ever(
    started: tuple[Client, FastAPI],
    planned: list[Plan],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, app = started
    want = answered(client, app, BODY)
    monkeypatch.setattr(sliding, "available", lambda: False)
    assert answered(client, app, BODY) == want
    assert [type(plan) for plan in planned] == [Streamed, Whole]


def test_no_more_comes_than_there_is_room_for(
    started: tuple[Client, FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, app = started
    gate = Gate(monkeypatch)

    async def test() -> None:
        request = asked(app)
        received = []
        async with nothing_left(request.service):
            task = asyncio.ensure_future(request.run())
            for taken in range(1, 20):
                await until(lambda taken=taken: gate.taken == taken)  # type: ignore[misc]
                for _ in range(100):
                    await asyncio.sleep(0)
                received.append(request.received * 300_007)
                assert request.service.budget.leased <= HELD
                gate.go_on.release()
            for _ in range(100):
                gate.go_on.release()
            await until(lambda: request.status is not None)
            request.gone.set()
            await task
        assert received[0] < HELD + 300_007
        steps = np.diff(received)
        assert steps.max() <= HUGE + 2 * 300_007
        assert received[-1] - received[0] >= 10 * 2**19
        assert request.status == 200

    client.runner.run(test())


@pytest.mark.parametrize("at", [0, 1, 2, 10, 30, 60, 79, 80])
def test_a_client_may_leave_at_any_time(
    started: tuple[Client, FastAPI], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    client, app = started

    async def test() -> None:
        request = asked(app)
        request.leaves_at = at
        async with nothing_left(request.service):
            await request.run()
        assert request.status == 400

    with freed_at_once(monkeypatch):
        client.runner.run(test())


def test_a_client_that_leaves_while_there_is_no_room_costs_no_more_than_the_room(
    started: tuple[Client, FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, app = started
    gate = Gate(monkeypatch)

    async def test() -> None:
        request = asked(app)
        async with nothing_left(request.service):
            task = asyncio.ensure_future(request.run())
            await until(lambda: gate.taken == 1)
            for _ in range(1000):
                await asyncio.sleep(0)
            request.leaves_at = request.received
            for _ in range(100):
                gate.go_on.release()
            await task
        assert request.status == 400

    client.runner.run(test())
    assert gate.taken <= HELD // 2**19


def test_a_request_may_be_cancelled_at_any_await(started: tuple[Client, FastAPI]) -> None:
    client, app = started

    async def cancelled(turns: int) -> bool:
        request = asked(app, piece=3 * MIB)
        async with nothing_left(request.service):
            task = asyncio.ensure_future(request.run())
            for _ in range(turns):
                if request.status is not None:
                    break
                await asyncio.sleep(0 if turns < 60 else 0.0005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return request.status == 200

    async def test() -> None:
        turns = 0
        while not await cancelled(turns):
            turns += 1 if turns < 60 else 3
            assert turns < 4000

    client.runner.run(test())


@pytest.mark.parametrize("refused", range(1, 6))
def test_any_lease_may_be_refused(
    started: tuple[Client, FastAPI], monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    client, app = started
    grant, asking = Budget.grant, 0

    async def refusing(budget: Budget, *arguments: Any) -> None:
        nonlocal asking
        asking += 1
        if asking == refused:
            raise Overloaded("no more")
        await grant(budget, *arguments)

    async def test() -> None:
        request = asked(app)
        async with nothing_left(request.service):
            task = asyncio.ensure_future(request.run())
            await until(lambda: task.done() or request.status is not None)
            request.gone.set()
            await task
        assert request.status == (503 if refused <= asking else 200)

    monkeypatch.setattr(Budget, "grant", refusing)
    client.runner.run(test())


@pytest.mark.parametrize("pieces", [0, 1, 5])
def test_a_system_that_stops_moving_pages_is_a_503(
    started: tuple[Client, FastAPI], monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    client, app = started
    move, left = sliding._move, pieces

    def moving(source: int, target: int) -> None:
        nonlocal left
        left -= 1
        move(source, target if left >= 0 else target + 1)

    async def test() -> None:
        request = asked(app)
        async with nothing_left(request.service):
            await request.run()
        assert request.status == 503

    monkeypatch.setattr(sliding, "_move", moving)
    client.runner.run(test())


def test_an_impossible_label_is_named_before_the_body_is_there(
    started: tuple[Client, FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, app = started
    labels = MANY["labels"].copy()
    labels[[1000, 3000]] = 1501
    body = wire.safetensors_body({**MANY, "labels": labels})

    async def test() -> None:
        request = asked(app, body)
        request.may_receive = lambda index: index < 40
        async with nothing_left(request.service):
            await request.run()
        problem = json.loads(request.content)
        assert (request.status, problem["position"]) == (422, [1000])

    with freed_at_once(monkeypatch):
        client.runner.run(test())


@pytest.mark.parametrize(
    ("tensors", "query", "status"),
    [
        ({**MANY, "labels": MANY["labels"][1:]}, b"", 422),
        (MANY, b"class_axis=5", 422),
        ({**MANY, "other": np.zeros(3)}, b"", 400),
        ({"log_probs": MANY["logits"], "labels": MANY["labels"]}, b"", 422),
    ],
)
def test_what_the_beginning_shows_to_be_wrong_is_answered_at_once(
    started: tuple[Client, FastAPI], tensors: Mapping[str, wire.Array], query: bytes, status: int
) -> None:
    client, app = started

    async def test() -> None:
        request = asked(app, wire.safetensors_body(tensors), query)
        request.may_receive = lambda index: index < 1
        async with nothing_left(request.service):
            await request.run()
        assert request.status == status

    client.runner.run(test())


@asynccontextmanager
async def side_by_side(app: FastAPI, count: int) -> AsyncIterator[list[Request]]:
    requests = [asked(app) for _ in range(count)]
    async with nothing_left(requests[0].service):
        tasks = [asyncio.ensure_future(request.run()) for request in requests]
        yield requests
        await until(lambda: all(request.status for request in requests))
        for request in requests:
            request.gone.set()
        await asyncio.gather(*tasks)


def test_more_at_a_time_than_fit_whole(started: tuple[Client, FastAPI]) -> None:
    client, app = started
    want = answered(client, app, BODY)

    async def test() -> None:
        async with side_by_side(app, 6) as requests:
            pass
        assert {request.content for request in requests} == {want}

    client.runner.run(test())


def test_the_memory_is_kept_for_the_next() -> None:
    app = create_app(Settings(memory_bytes=BUDGET), warm=lambda: None)
    with running(app) as client:
        wait_until_ready(client)
        service: Service = app.state.service
        want = answered(client, app, BODY)
        idle = service.budget.idle
        assert 0 < idle <= HELD
        for _ in range(3):
            assert answered(client, app, BODY) == want
            assert service.budget.idle == idle


def test_a_body_larger_than_all_memory_is_answered_over_a_socket() -> None:
    """And with it the limits as they are: this is not the fixtures' process."""
    rows, classes = 2001, 20_011
    part = RANDOM.normal(0, 3, (rows // 3, classes)).astype(np.float32)
    logits = np.concatenate([part] * 3)
    labels = RANDOM.integers(0, classes, rows)
    body = wire.safetensors_body({"logits": logits, "labels": labels})
    assert len(body) > 2 * BUDGET
    headers = {"content-type": wire.SAFETENSORS}
    with serving(LOSSD_MEMORY_BYTES=str(BUDGET)) as url, httpx.Client(timeout=PATIENCE) as client:
        path = url.join("/v1/cross_entropy")
        for _ in range(2):
            response = client.post(path, content=body, headers=headers)
            got = wire.tensors_of(response)
            each = got["per_element"].reshape(3, -1)
            shifted = logits - logits.max(1, keepdims=True)
            want = np.log(np.exp(shifted.astype(np.float64)).sum(1)) - shifted[range(rows), labels]
            np.testing.assert_allclose(each.ravel(), want, rtol=1e-5)
        last = wire.safetensors_body({"logits": logits, "labels": labels.astype(np.int16)})
        refused = client.post(path, content=last, headers=headers)
        wire.problem_of(refused, 413)
        assert client.get(url.join("/readyz")).json()["leased_bytes"] == 0
