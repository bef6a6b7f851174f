"""Mixed requests for as long as one likes, and by how much each of them makes a process grow."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Iterator

import numpy as np

from benchmarks import requests
from benchmarks.client import Answer, Client, Request, get, post
from benchmarks.processes import memory
from benchmarks.server import Server
from tests.service import wire
from tests.service.cases import tensors_for, worked

_V2 = "/v2/models/cross_entropy/infer"
_SAMPLES = 60
_APART = _SAMPLES // 4


def mixed() -> list[tuple[Request, int]]:
    """Requests of every format and route, right and wrong, and the status of each one's answer."""
    return [(request.joined, status) for request, status in (*_right(), *_wrong())]


def _right() -> Iterator[tuple[Request, int]]:
    for path in ("/v1/cross_entropy", "/v1/nll_loss", "/v1/softmax", "/v1/log_softmax"):
        for name, build in wire.BODIES.items():
            yield _post(path, build(tensors_for(path)), wire.MEDIA_TYPES[name]), 200
    yield _post("/v1/explain", wire.json_body(worked()), wire.JSON), 200
    yield _post("/v1/cross_entropy", wire.npz_body(worked(), compressed=True), wire.NPZ), 200
    numbers = np.random.default_rng(7)
    for rows in (4, 300):  # a body of 300 rows comes in several pieces, and is landed
        logits = numbers.standard_normal((rows, 1000), np.float32)
        tensors: dict[str, wire.Array] = {
            "labels": numbers.integers(0, 1000, rows),
            "logits": logits,
        }
        yield requests.v2(tensors), 200
        yield _post("/v1/softmax", wire.npz_body({"logits": logits}), wire.NPZ), 200
        too_few = tensors | {"logits": logits[:, :2]}
        yield requests.json_text(too_few, "/v1/cross_entropy"), 422
    for path in ("/healthz", "/readyz", "/v2", "/v2/models/softmax/stats"):
        yield get(path), 200


def _wrong() -> Iterator[tuple[Request, int]]:
    whole = wire.safetensors_body(worked())
    yield _post("/v1/cross_entropy", whole[:-1], wire.SAFETENSORS), 400
    yield _post("/v1/cross_entropy", b"PK nonsense", wire.NPZ), 400
    yield _post("/v1/cross_entropy", b'{"logits": [[1, 2], [3]], "labels": [0, 1]}', wire.JSON), 400
    yield _post("/v1/cross_entropy", b'{"logits": [[1, 2]], "labels": [2]}', wire.JSON), 422
    yield _post("/v1/cross_entropy?oops=1", whole, wire.SAFETENSORS), 422
    yield _post("/v1/cross_entropy", whole, "text/csv"), 415
    yield get("/v1/nothing"), 404
    yield get("/v1/softmax"), 405
    yield post(_V2, [json.dumps({"inputs": []}).encode()]), 422
    yield post("/v2/models/none/infer", [b"{}"]), 404


def _post(path: str, body: bytes, media_type: str) -> Request:
    return post(path, [body], content_type=media_type)


class Soak:
    """A server, and a connection to it that is made anew whenever it is closed."""

    def __init__(self, server: Server, seed: int = 0) -> None:
        self._server = server
        self._random = random.Random(seed)
        self._mixed = mixed()
        self._client: Client | None = None

    def send(self, count: int) -> None:
        """So many of the requests in random order, each of which must be answered as it should."""
        for _ in range(count):
            request, status = self._random.choice(self._mixed)
            answer = self._exchange(request)
            assert answer.status == status, (request.head[:300], answer)

    def growth(self, count: int) -> float:
        """By how many bytes the server grows for each of ``count`` requests.

        That is the median of the slopes over a quarter of them: a few large allocations are seen by
        less than half of these, and what goes on by all.
        """
        each = count // _SAMPLES
        held = []
        for _ in range(_SAMPLES):
            self.send(each)
            held.append(memory(self._server.process))
        return statistics.median(
            (after - before) / (_APART * each)
            for before, after in zip(held, held[_APART:], strict=False)
        )

    def _exchange(self, request: Request) -> Answer:
        client = self._client or Client(self._server)
        answer = client.exchange(request)
        closing = answer.headers.get("connection") == "close"
        self._client = None if closing else client
        if closing:
            client.close()
        return answer

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
