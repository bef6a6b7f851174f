"""Bodies computed in memory that they do not fit into: the same answers, and nothing else held."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from fastapi import FastAPI
from safetensors.numpy import load

from kernels import dtypes
from kernels.report import numbers, report_of
from service import regimes
from service.app import create_app
from service.codecs.json.values import written
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
from tests.service.codecs import infers
from tests.service.conftest import ready, serving
from tests.service.request.harness import (
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
async def app() -> AsyncIterator[FastAPI]:
    made = create_app(Settings(memory_bytes=2 * BUDGET, memory_wait_seconds=5), warm=lambda: None)
    async with ready(made):
        yield made


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


async def run(request: Request) -> Request:
    """The request once it is answered, by a client that stays until then."""
    async with nothing_left(request.service):
        task = asyncio.ensure_future(request.run())
        await until(lambda: task.done() or request.status is not None)
        request.gone.set()
        await task
    return request


async def answered(
    app: FastAPI, body: bytes, query: bytes = b"", path: str = "/v1/cross_entropy"
) -> bytes:
    request = asked(app, body, query)
    request._scope["path"] = path
    await run(request)
    assert request.status == 200, request.content
    return request.content


CASES: dict[str, tuple[dict[str, wire.Array], bytes]] = {
    "all outputs": (MANY, b"outputs=" + ",".join(zoo.outputs()).encode()),
    "likeliest classes": (
        {**MANY, "chosen": np.array([1500, 7])},
        b"top_k=5&focal=2&outputs=loss,margin,top_log_probs,top_classes,chosen_log_probs",
    ),
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
    "sequences": (
        {
            # Of a narrower type than the logits, the library would write it behind them.
            "mask": (RANDOM.random((40, 99)) < 0.9).astype(np.int64),
            "segments": RANDOM.integers(0, 5, (40, 99)),
            "sample_weight": RANDOM.uniform(0, 2, (40, 99)),
            "logits": RANDOM.normal(0, 3, (40, 99, 1501)).astype(np.float32),
            "labels": RANDOM.integers(0, 1501, (40, 99)),
        },
        b"shift=1&class_axis=-1&bytes=99&outputs=" + ",".join(zoo.outputs()).encode(),
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
async def test_the_same_bits_as_in_memory_of_the_whole(
    app: FastAPI,
    planned: list[Plan],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    tensors, query = CASES[name]
    body = wire.safetensors_body(tensors)
    got = await answered(app, body, query)
    plan = streamed(planned)
    assert plan.held <= len(body) // 2
    monkeypatch.setattr(regimes, "STREAMED_BODY_BYTES", 2**40)
    assert got == await answered(app, body, query)
    assert len(planned) == 1


async def test_binary_losses_stream_behind_narrow_labels(
    app: FastAPI, planned: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels are as many as the logits; safetensors' own writer would put them behind."""
    # The window is small: what comes ahead has to be a page that slides, at least.
    monkeypatch.setattr(regimes, "STREAMED_AHEAD_BYTES", HUGE)
    logits = MANY["logits"][:4000]  # so many labels that the tensors after them are aligned
    labels = RANDOM.integers(0, 2, logits.shape).astype(np.int8)
    pos_weight = np.asarray(RANDOM.uniform(0, 2, logits.shape[1]))
    parts: dict[str, tuple[str, wire.Array]]
    parts = {"labels": ("I8", labels), "pos_weight": ("F64", pos_weight), "logits": ("F32", logits)}
    entries, at = {}, 0
    for name, (kind, array) in parts.items():
        entries[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    tensors = b"".join(array.tobytes() for _, array in parts.values())
    body = len(text).to_bytes(8, "little") + text + tensors
    query, path = b"outputs=loss,loss_sum,count", "/v1/binary_cross_entropy"
    got = await answered(app, body, query, path)
    assert streamed(planned).held <= len(body) // 2
    monkeypatch.setattr(regimes, "STREAMED_BODY_BYTES", 2**40)
    assert got == await answered(app, body, query, path)


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=lambda dtype: dtype.name)
async def test_every_type_of_logits(
    app: FastAPI,
    planned: list[Plan],
    monkeypatch: pytest.MonkeyPatch,
    dtype: dtypes.DType,
) -> None:
    example = zoo.example((8007, 1001), 1, dtype, "plain")
    logits, labels, _ = example.lying(np.asarray)
    body = wire.safetensors_body({"logits": logits, "labels": labels.astype(np.int64)})
    got = await answered(app, body)
    streamed(planned)
    monkeypatch.setattr(regimes, "STREAMED_BODY_BYTES", 2**40)
    assert got == await answered(app, body)


@pytest.mark.parametrize("cut", [3, 8, 9, 100])
async def test_a_beginning_that_comes_in_parts_is_waited_for(
    app: FastAPI, planned: list[Plan], cut: int
) -> None:
    request = asked(app)
    first, *others = request.pieces
    request.pieces = [first[:cut], first[cut : cut + 8], first[cut + 8 :], *others]

    await run(request)
    assert request.status == 200
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
async def test_what_needs_all_of_its_logits_has_memory_for_them(
    app: FastAPI,
    planned: list[Plan],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    body = wire.safetensors_body(NOT_STREAMED[name])
    got = await answered(app, body)
    [plan] = planned
    assert isinstance(plan, Whole)
    monkeypatch.setattr(regimes, "STREAMED_BODY_BYTES", 2**40)
    assert got == await answered(app, body)


async def test_where_no_pages_can_be_moved_all_is_as_ever(
    app: FastAPI,
    planned: list[Plan],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    want = await answered(app, BODY)
    monkeypatch.setattr(sliding, "available", lambda: False)
    assert await answered(app, BODY) == want
    assert [type(plan) for plan in planned] == [Streamed, Whole]


async def test_no_more_comes_than_there_is_room_for(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)

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


@pytest.mark.parametrize("at", [0, 1, 2, 10, 30, 60, 79, 80])
async def test_a_client_may_leave_at_any_time(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:

    with freed_at_once(monkeypatch):
        request = asked(app)
        request.leaves_at = at
        async with nothing_left(request.service):
            await request.run()
        assert request.status == 400


async def test_a_client_that_leaves_while_there_is_no_room_costs_no_more_than_the_room(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)

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
    assert gate.taken <= HELD // 2**19


async def test_a_request_may_be_cancelled_at_any_await(app: FastAPI) -> None:

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

    turns = 0
    while not await cancelled(turns):
        turns += 1 if turns < 60 else 3
        assert turns < 4000


@pytest.mark.parametrize("refused", range(1, 6))
async def test_any_lease_may_be_refused(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    grant, asking = Budget.grant, 0

    async def refusing(budget: Budget, *arguments: Any) -> None:
        nonlocal asking
        asking += 1
        if asking == refused:
            raise Overloaded("no more")
        await grant(budget, *arguments)

    monkeypatch.setattr(Budget, "grant", refusing)
    request = asked(app)
    await run(request)
    assert request.status == (503 if refused <= asking else 200)


@pytest.mark.parametrize("pieces", [0, 1, 5])
async def test_a_system_that_stops_moving_pages_is_a_503(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    move, left = sliding._move, pieces

    def moving(source: int, target: int) -> None:
        nonlocal left
        left -= 1
        move(source, target if left >= 0 else target + 1)

    monkeypatch.setattr(sliding, "_move", moving)
    request = asked(app)
    async with nothing_left(request.service):
        await request.run()
    assert request.status == 503


async def test_an_impossible_label_is_named_before_the_body_is_there(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = MANY["labels"].copy()
    labels[[1000, 3000]] = 1501
    body = wire.safetensors_body({**MANY, "labels": labels})

    with freed_at_once(monkeypatch):
        request = asked(app, body)
        request.may_receive = lambda index: index < 40
        async with nothing_left(request.service):
            await request.run()
        problem = json.loads(request.content)
        assert (request.status, problem["position"]) == (422, [1000])


@pytest.mark.parametrize(
    ("tensors", "query", "status"),
    [
        ({**MANY, "labels": MANY["labels"][1:]}, b"", 422),
        (MANY, b"class_axis=5", 422),
        ({**MANY, "other": np.zeros(3)}, b"", 400),
        ({"log_probs": MANY["logits"], "labels": MANY["labels"]}, b"", 422),
    ],
)
async def test_what_the_beginning_shows_to_be_wrong_is_answered_at_once(
    app: FastAPI, tensors: Mapping[str, wire.Array], query: bytes, status: int
) -> None:

    request = asked(app, wire.safetensors_body(tensors), query)
    request.may_receive = lambda index: index < 1
    async with nothing_left(request.service):
        await request.run()
    assert request.status == status


def declared(**changes: Mapping[str, Any]) -> tuple[bytes, int]:
    """A V2 body of MANY, with ``changes`` to what its JSON says of each tensor."""
    body, length = infers.binary({name: MANY[name] for name in ("labels", "logits")})
    said = json.loads(body[:length])
    for entry in said["inputs"]:
        entry |= changes.get(entry["name"], {})
    text = json.dumps(said).encode()
    return text + body[length:], len(text)


@pytest.mark.parametrize(
    "change",
    [{"name": "logit"}, {"datatype": "FP23"}, {"shape": [9, 9]}, {"shape": 9}, {"datatype": None}],
)
async def test_what_the_json_of_v2_has_wrong_is_answered_before_the_tensors(
    app: FastAPI, change: Mapping[str, Any]
) -> None:
    for place in ("labels", "logits"):
        body, length = declared(**{place: change})
        request = asked(app, body)
        path = "/v2/models/cross_entropy/infer"
        request._scope |= {"path": path, "raw_path": path.encode()}
        headers: Any = request._scope["headers"]
        headers[0] = (b"content-type", b"application/octet-stream")
        headers.append((b"inference-header-content-length", str(length).encode()))
        request.may_receive = lambda index: index < 1
        async with nothing_left(request.service):
            await request.run()
        assert request.status == 400
        assert change.get("name", place) in json.loads(request.content)["error"]


@pytest.mark.parametrize(
    "change", [{"dtype": "F31"}, {"shape": [9, 9]}, {"shape": "9"}, {"data_offsets": [5]}]
)
async def test_what_the_header_of_safetensors_has_wrong_is_answered_before_the_tensors(
    app: FastAPI, change: Mapping[str, Any]
) -> None:
    for name in MANY:
        start = 8 + int.from_bytes(BODY[:8], "little")
        header = json.loads(BODY[8:start])
        header[name] |= change
        text = json.dumps(header).encode()
        request = asked(app, len(text).to_bytes(8, "little") + text + BODY[start:])
        request.may_receive = lambda index: index < 1
        async with nothing_left(request.service):
            await request.run()
        assert request.status == 400
        assert name in json.loads(request.content)["detail"]


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


async def test_more_at_a_time_than_fit_whole(app: FastAPI) -> None:
    want = await answered(app, BODY)

    async with side_by_side(app, 6) as requests:
        pass
    assert {request.content for request in requests} == {want}


async def test_the_memory_is_kept_for_the_next() -> None:
    app = create_app(Settings(memory_bytes=BUDGET), warm=lambda: None)
    async with ready(app):
        service: Service = app.state.service
        want = await answered(app, BODY)
        idle = service.budget.idle.size
        assert 0 < idle <= HELD
        for _ in range(3):
            assert await answered(app, BODY) == want
            assert service.budget.idle.size == idle


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


@pytest.mark.parametrize("accept", [wire.JSON, wire.SAFETENSORS])
@pytest.mark.parametrize("layout", ["rows", "images"])
async def test_a_report_is_that_of_a_body_that_is_held(
    app: FastAPI,
    planned: list[Plan],
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    accept: str,
) -> None:
    # A report's window is four steps: what comes ahead has to be a page that slides, at least.
    monkeypatch.setattr(regimes, "STREAMED_AHEAD_BYTES", HUGE)
    tensors = MANY
    if layout == "images":
        logits = RANDOM.normal(0, 3, (6, 16, 256, 250)).astype(np.float32)
        tensors = {"logits": logits, "labels": RANDOM.integers(0, 16, (6, 256, 250))}
    request = asked(app, wire.safetensors_body(tensors))
    request._scope["path"] = "/v1/report"
    headers: Any = request._scope["headers"]
    headers.append((b"accept", accept.encode()))
    await run(request)
    assert request.status == 200, request.content
    assert isinstance(planned[0], Streamed)
    assert planned[0].held <= HELD + 4 * MIB  # with an image, and 3 MB of labels
    expected = json.loads(written(numbers(report_of(**tensors))))
    if accept == wire.JSON:
        assert json.loads(request.content) == expected
    else:
        arrays = load(request.content)
        assert json.loads(arrays["report"].tobytes()) == expected
        np.testing.assert_array_equal(arrays["label_map"], tensors["labels"])
