"""The one way through: bodies, limits, threads, queues and clients that leave."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.codecs import BY_MEDIA_TYPE
from service.compute.lane import Lane
from service.request.exchange import formats
from service.request.operation import Service
from service.settings import Settings
from tests.service import wire
from tests.service.cases import LOGITS, worked
from tests.service.conftest import Client, ready, running, wait_until_ready


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"", wire.JSON, 400),
        (b"{", wire.JSON, 400),
        (b"[1]", wire.JSON, 400),
        (b'{"logits": [[1, 2], [3]], "labels": [0, 1]}', wire.JSON, 400),
        (b'{"logits": [[1, "x"]], "labels": [0]}', wire.JSON, 400),
        (b"[" * 100_000, wire.JSON, 400),
        (b"", wire.SAFETENSORS, 400),
        (b"\xff" * 100, wire.SAFETENSORS, 400),
        (wire.safetensors_body(worked())[:-1], wire.SAFETENSORS, 400),
        (wire.safetensors_body({"logit": LOGITS}), wire.SAFETENSORS, 400),
        (b"", wire.NPZ, 400),
        (b"PK\x05\x06" + bytes(18), wire.NPZ, 422),
        (wire.npz_body(worked())[:-1], wire.NPZ, 400),
        (wire.npz_body({"logits": np.array(["a"])}), wire.NPZ, 400),
        (wire.npz_body({"logits": np.array([{}])}), wire.NPZ, 400),
    ],
)
def test_a_broken_body_is_a_400_or_says_what_is_missing(
    client: Client, body: bytes, media_type: str, status: int
) -> None:
    problem = wire.problem_of(client.send("/v1/cross_entropy", body, media_type), status)
    assert ("missing" in problem["detail"]) == (status == 422)


def test_media_types_that_are_not_spoken(client: Client) -> None:
    body = wire.json_body(worked())
    for media_type in ("text/plain", "application/x-www-form-urlencoded"):
        answered = wire.problem_of(client.send("/v1/cross_entropy", body, media_type), 415)
        assert answered["field"] == "content-type"
    wire.problem_of(client.post("/v1/cross_entropy", content=body), 415)
    gzip = client.send("/v1/cross_entropy", body, wire.JSON, content_encoding="gzip")
    assert wire.problem_of(gzip, 415)["field"] == "content-encoding"
    html = client.send("/v1/cross_entropy", body, wire.JSON, accept="text/html")
    assert wire.problem_of(html, 406)["field"] == "accept"


def limited_app(**limits: Any) -> FastAPI:
    # Codecs that another test has changed are not for this one.
    formats.cache_clear()
    return create_app(Settings(**limits), warm=lambda: None)


@contextmanager
def limited(**limits: Any) -> Iterator[tuple[Client, FastAPI]]:
    app = limited_app(**limits)
    with running(app) as client:
        wait_until_ready(client)
        yield client, app
    formats.cache_clear()


def test_the_limit_of_explain_is_its_own() -> None:
    with limited(explain_max_elements=LOGITS.size - 1) as (client, _):
        body = wire.npz_body(worked())
        problem = wire.problem_of(client.send("/v1/explain", body, wire.NPZ), 413)
        assert problem["where"] == "logits"
        assert f"at most {LOGITS.size - 1}" in problem["detail"]
        assert client.send("/v1/cross_entropy", body, wire.NPZ).status_code == 200


def test_large_answers_are_not_written_as_json() -> None:
    with limited(max_json_answer_elements=LOGITS.size - 1) as (client, _):
        body = wire.npz_body({"logits": LOGITS.astype(np.float32)})
        problem = wire.problem_of(client.send("/v1/softmax", body, wire.NPZ, accept=wire.JSON), 406)
        assert "binary" in problem["detail"]
        assert client.send("/v1/softmax", body, wire.NPZ).status_code == 200


def test_lists_without_numbers_count_as_well() -> None:
    with limited(max_json_answer_elements=99) as (client, _):
        for rows, status in ((100, 406), (99, 200)):
            body = wire.npz_body({"logits": np.zeros((rows, 0), np.float32)})
            response = client.send("/v1/softmax", body, wire.NPZ, accept=wire.JSON)
            assert response.status_code == status


def test_bodies_over_the_limit_are_refused() -> None:
    body = wire.npz_body(worked())

    async def chunks() -> Any:
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    headers = {"content-type": wire.NPZ}
    with limited(max_body_bytes=len(body) - 1) as (client, _):
        wire.problem_of(client.post("/v1/softmax", content=body, headers=headers), 413)
        wire.problem_of(client.post("/v1/softmax", content=chunks(), headers=headers), 413)
    with limited(max_body_bytes=len(body)) as (client, _):
        for content in (body, chunks()):
            response = client.post("/v1/cross_entropy", content=content, headers=headers)
            assert response.status_code == 200


def test_what_a_compressed_body_grows_to_is_limited() -> None:
    body = wire.npz_body({"logits": np.zeros((1000, 1000))}, compressed=True)
    with limited(max_decoded_bytes=10**6) as (client, _):
        wire.problem_of(client.send("/v1/softmax", body, wire.NPZ), 413)


@asynccontextmanager
async def busy_lane(service: Service) -> AsyncIterator[None]:
    """While it lasts, the compute lane does something else."""
    release, started = threading.Event(), threading.Event()

    def occupy() -> None:
        started.set()
        release.wait(60)

    task = asyncio.ensure_future(service.compute.call(occupy))
    while not started.is_set():
        await asyncio.sleep(0.001)
    try:
        yield
    finally:
        release.set()
        await asyncio.wait_for(task, 60)


@contextmanager
def busy(client: Client, service: Service) -> Iterator[None]:
    """The same for a client that blocks."""
    occupied = busy_lane(service)
    client.runner.run(occupied.__aenter__())
    try:
        yield
    finally:
        client.runner.run(occupied.__aexit__(None, None, None))


LARGE = wire.npz_body({"logits": np.zeros((100, 1000), np.float32), "labels": np.zeros(100, int)})


def test_a_full_queue_is_a_503_and_health_answers_meanwhile() -> None:
    body = LARGE
    with limited(lane_queue=1) as (client, app):
        service: Service = app.state.service
        with busy(client, service):
            client.runner.run(_soon(service.compute.call(lambda: None)))
            response = client.send("/v1/cross_entropy", body, wire.NPZ)
            assert wire.problem_of(response, 503)["type"] == "urn:lossd:problem:overloaded"
            assert int(response.headers["retry-after"]) >= 1
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").status_code == 200
        assert client.send("/v1/cross_entropy", body, wire.NPZ).status_code == 200


_KEPT: set[asyncio.Task[Any]] = set()


async def _soon(work: Any) -> None:
    """Start ``work``, and let it go as far as it goes at once."""
    task = asyncio.ensure_future(work)
    _KEPT.add(task)
    task.add_done_callback(_KEPT.discard)
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def call(
    app: FastAPI, path: str, body: bytes, media_type: str, gone: asyncio.Event
) -> tuple[Callable[[], Any], list[MutableMapping[str, Any]]]:
    """An ASGI request whose client leaves once ``gone`` is set, and what it was sent."""
    sent: list[MutableMapping[str, Any]] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if not gone.is_set():
            sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", media_type.encode())],
    }
    return lambda: app(scope, receive, send), sent


async def test_work_of_a_client_that_left_never_starts() -> None:
    app = limited_app()
    async with ready(app), busy_lane(app.state.service):
        service: Service = app.state.service
        gone = asyncio.Event()
        request, sent = call(app, "/v1/cross_entropy", LARGE, wire.NPZ, gone)
        task = asyncio.ensure_future(request())
        while not service.compute.waiting:
            await asyncio.sleep(0.001)
        gone.set()
        await task
        assert not sent
        assert not service.compute.waiting


@pytest.mark.parametrize(("rows", "inline"), [(4, True), (40000, False)])
def test_large_bodies_are_decoded_and_encoded_off_the_loop(
    monkeypatch: pytest.MonkeyPatch, rows: int, inline: bool
) -> None:
    threads: dict[str, str] = {}

    def spy(name: str, function: Any) -> Any:
        def spying(*arguments: Any) -> Any:
            threads[name] = threading.current_thread().name
            return function(*arguments)

        return spying

    own = BY_MEDIA_TYPE[wire.JSON]
    for name in ("decode", "encode"):
        monkeypatch.setattr(own, name, spy(name, getattr(own, name)))
    body = wire.json_body({"logits": np.zeros((rows, 10), np.float32)})
    with limited() as (client, _):
        assert client.send("/v1/softmax", body, wire.JSON).status_code == 200
    expected = threading.current_thread().name if inline else "lossd-transcode"
    assert threads == {"decode": expected, "encode": expected}


def test_the_body_is_given_back_before_the_answer_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = BY_MEDIA_TYPE[wire.SAFETENSORS]
    decoding, encoding = own.decode, own.encode
    traces: list[weakref.ref[Any]] = []
    left: list[Any] = []

    def decode(body: memoryview, *arguments: Any) -> Any:
        message = decoding(body, *arguments)
        traces.extend((weakref.ref(body), weakref.ref(message.tensors["logits"])))
        return message

    def encode(outputs: Any) -> Any:
        left.extend(trace() for trace in traces)
        return encoding(outputs)

    monkeypatch.setattr(own, "decode", decode)
    monkeypatch.setattr(own, "encode", encode)
    body = wire.safetensors_body({"logits": np.zeros((400, 1000), np.float32)})
    with limited() as (client, _):
        assert client.send("/v1/softmax", body, wire.SAFETENSORS).status_code == 200
    assert left == [None, None]


@pytest.mark.parametrize("sent", wire.BODIES)
@pytest.mark.parametrize("rows", [4, 800])
def test_small_kernels_run_at_once_and_others_in_their_lane(
    monkeypatch: pytest.MonkeyPatch, rows: int, sent: str
) -> None:
    lanes: list[Lane] = []
    run = Lane.run

    def spying(lane: Lane, *arguments: Any) -> Any:
        lanes.append(lane)
        return run(lane, *arguments)

    monkeypatch.setattr(Lane, "run", spying)
    tensors: dict[str, wire.Array] = {
        "logits": np.zeros((rows, 100), np.float32),
        "labels": np.zeros(rows, np.int64),
    }
    with limited() as (client, app):
        body = wire.BODIES[sent](tensors)
        # The first may have to compile or load the kernel, which is done in the lane.
        for _ in range(2):
            lanes.clear()
            response = client.send("/v1/cross_entropy", body, wire.MEDIA_TYPES[sent])
            assert response.status_code == 200
        assert lanes == ([app.state.service.compute] if rows == 800 else [])


def test_a_small_request_is_answered_while_the_lane_is_busy() -> None:
    body = wire.json_body({"logits": np.zeros((4, 5)), "labels": np.zeros(4, int)})
    with limited() as (client, app):
        client.send("/v1/cross_entropy", body, wire.JSON)
        with busy(client, app.state.service):
            assert client.send("/v1/cross_entropy", body, wire.JSON).status_code == 200


def test_what_takes_too_long_is_a_503() -> None:
    with limited(compute_seconds=0.05) as (client, app), busy(client, app.state.service):
        response = client.send("/v1/cross_entropy", LARGE, wire.NPZ)
        assert wire.problem_of(response, 503)["type"] == "urn:lossd:problem:expired"
        assert int(response.headers["retry-after"]) >= 1


def test_more_memory_than_there_is_is_a_413_before_the_body_is_read() -> None:
    with limited(memory_bytes=2**22) as (client, _):
        headers = {"content-type": wire.NPZ, "content-length": str(2**22)}
        response = client.post("/v1/softmax", content=b"", headers=headers)
        assert "bytes of memory" in wire.problem_of(response, 413)["detail"]


def test_memory_that_others_hold_is_a_503_after_a_while() -> None:
    with limited(memory_bytes=2**24, memory_wait_seconds=0.05) as (client, app):
        budget = app.state.service.budget
        lease = client.runner.run(budget.lease(2**23))
        large = wire.npz_body({"logits": np.zeros((1000, 2000), np.float32)})
        response = client.send("/v1/softmax", large, wire.NPZ)
        assert wire.problem_of(response, 503)["type"] == "urn:lossd:problem:overloaded"
        assert client.send("/v1/cross_entropy", LARGE, wire.NPZ).status_code == 200
        lease.release()
        assert budget.leased == 0


class Pieces:
    """An ASGI request of a body that comes in pieces, all at once, or stalls before the last."""

    def __init__(self, app: FastAPI, body: bytes, *, chunked: bool, stalls: bool = False) -> None:
        self.pieces = [body[at : at + 2**18] for at in range(0, len(body), 2**18)]
        self.stalls = stalls
        self.waits = asyncio.Event()
        self.sent: list[MutableMapping[str, Any]] = []
        headers = [(b"content-type", wire.SAFETENSORS.encode())]
        if not chunked:
            headers.append((b"content-length", b"%d" % len(body)))
        path = "/v1/softmax"
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b""}
        self._app, self._scope = app, {**scope, "headers": headers}

    async def run(self) -> None:
        await self._app(self._scope, self.receive, self.send)

    async def receive(self) -> MutableMapping[str, Any]:
        await asyncio.sleep(0)
        if not self.pieces or (self.stalls and len(self.pieces) == 1):
            self.waits.set()
            await asyncio.Event().wait()
        piece = self.pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)


SEVEN_MB = wire.safetensors_body({"logits": np.zeros((1750, 1000), np.float32)})
SIX_MB = wire.safetensors_body({"logits": np.zeros((1500, 1000), np.float32)})


async def test_bodies_of_unknown_length_are_all_answered_though_few_fit_at_a_time() -> None:
    app = limited_app(memory_bytes=2**24)
    async with ready(app):
        requests = [Pieces(app, SIX_MB, chunked=index % 3 > 0) for index in range(12)]
        await asyncio.gather(*(request.run() for request in requests))
        assert [request.sent[0]["status"] for request in requests] == [200] * 12
        assert app.state.service.budget.leased == 0


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_that_stalls_is_refused_once_others_wait_for_its_memory(chunked: bool) -> None:
    app = limited_app(memory_bytes=2**24, memory_wait_seconds=2)
    async with ready(app):
        slow = Pieces(app, SEVEN_MB, chunked=chunked, stalls=True)
        task = asyncio.ensure_future(slow.run())
        await asyncio.wait_for(slow.waits.wait(), 60)
        assert app.state.service.budget.leased >= len(SIX_MB)
        other = Pieces(app, SIX_MB, chunked=False)
        await other.run()
        await task
        assert other.sent[0]["status"] == 200
        start, content = slow.sent
        assert start["status"] == 503
        assert dict(start["headers"])[b"retry-after"] == b"1"
        assert b"too slowly while other requests waited" in content["body"]

        assert app.state.service.budget.leased == 0
