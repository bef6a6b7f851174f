"""Whole requests, damaged: each gets one answer, none is a 500, and nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import FastAPI

from service.app import create_app
from service.routes import OPERATIONS
from service.routes.v2 import models
from service.settings import Settings
from tests.fuzz.bodies import EXAMPLES, corpus
from tests.fuzz.makers import mutated, number, pieces
from tests.fuzz.makers_v2 import Body
from tests.service import wire
from tests.service.cases import tensors_for, worked
from tests.service.codecs import infers
from tests.service.conftest import ready

REQUESTS = 2 * EXAMPLES // 5  # enough for each status
PATIENCE = 120  # seconds until a request that hangs fails

# What an answer must not tell: paths, addresses, classes and what is inside.
LEAK = re.compile(r"\.py\b|0x[0-9a-f]{6}|Traceback|object at|site-packages|<class|service\.|np\.")
FORBIDDEN_IN_A_HEADER = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

V1 = [operation.path for operation in OPERATIONS]
V2 = [f"/v2/models/{name}/infer" for name in models.MODELS]
OTHERS = ("/", "/v2", "/v2/repository/index", "/v2/systemsharedmemory/region/r/register", "/docs")
MEDIA_TYPES = (*wire.MEDIA_TYPES.values(), "text/plain", "", "application/json; charset=utf-16")
# Nothing that has a kernel compiled which no other test needs.
QUERIES = (
    *("reduction=sum", "reduction=none", "outputs=loss,rank", "ignore_index=-1", "class_axis=-1"),
    *("label_smoothing=2", "temperature=nan", "softcap=-1", "z_loss=1e-3", "empty=error", "=", "&"),
    *(
        "outputs=",
        "class_axis=99999999999999999999",
        "reduction=%00",
        "x=1",
        "a%",
        "\xff",
        "dtype=1",
    ),
)


@dataclass
class Exchange:
    """A client of one request, that may leave before its body has ended."""

    pieces: list[bytes]
    leaves: bool
    sent: list[MutableMapping[str, Any]] = field(default_factory=list)

    async def receive(self) -> MutableMapping[str, Any]:
        if self.pieces:
            body = self.pieces.pop(0)
            more = self.leaves or bool(self.pieces)
            return {"type": "http.request", "body": body, "more_body": more}
        if not self.leaves:
            await asyncio.Event().wait()  # until the answer is there, and nobody asks any more
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def content(self) -> bytes:
        return b"".join(bytes(message.get("body", b"")) for message in self.sent[1:])

    def check(self) -> None:
        """Assert that the bytes sent are one answer, fit for a client."""
        assert self.sent[0]["type"] == "http.response.start"
        assert [message.get("more_body", False) for message in self.sent[1:]].count(False) == 1
        headers = dict(self.sent[0]["headers"])
        assert not any(map(FORBIDDEN_IN_A_HEADER.search, headers.values()))
        assert self.status < 500 or self.status == 501, self.content
        if self.status >= 400 and not self.leaves:
            problem = json.loads(self.content)
            assert problem["status"] == self.status
            assert problem["error"] == problem["detail"]
            assert self.content.isascii()
            assert not LEAK.search(self.content.decode()), self.content


def body_for(rng: random.Random, path: str) -> tuple[str, Body]:
    """A body that is right for ``path``, the type that it is sent as, and maybe some damage."""
    if rng.random() < 0.2:
        name = rng.choice(("json", "safetensors", "npz", "infer"))
        return wire.MEDIA_TYPES.get(name, wire.JSON), rng.choice(corpus(name))
    name = rng.choice(list(wire.BODIES))
    tensors = tensors_for(path if path in V1 else "/v1/" + path.split("/")[-2])
    if "labels" in tensors and rng.random() < 0.3:
        tensors["labels"] = tensors["labels"] + rng.choice((-(2**63), -101, -1, 5, 2**31))
    if path in V2:
        given = {key: np.ascontiguousarray(array) for key, array in tensors.items()}
        raw, length = infers.binary(given)
        body = Body(raw, length)
    else:
        body = Body(wire.BODIES[name](tensors))
    if rng.random() < 0.6:
        body = Body(mutated(rng, body.raw) or b"x", body.header_length)
    return wire.MEDIA_TYPES[name], body


def request(rng: random.Random) -> tuple[dict[str, Any], Exchange]:
    path = rng.choice((*V1, *V2))
    media_type, body = body_for(rng, path)
    if rng.random() < 0.1:
        path = rng.choice((*OTHERS, path + "/", path.upper(), path[:-1], "/\x00\u2028/..", ""))
    headers = [("host", "lossd"), ("content-type", media_type)]
    if body.header_length is not None:
        headers.append(("inference-header-content-length", str(body.header_length)))
    if body.coding is not None:
        headers.append(("content-encoding", body.coding))
    length = len(body.raw)
    if rng.random() < 0.1:
        length = rng.choice((length + 1, max(0, length - 1), number(rng)))
    if rng.random() < 0.7:
        headers.append(("content-length", str(length)))
    headers += [
        (name, rng.choice((*MEDIA_TYPES, "gzip", "*/*;q=x", ";=,", "\xff")))
        for name in ("accept", "content-type", "content-encoding", "accept-encoding")
        if rng.random() < 0.08
    ]
    query = "&".join(rng.choices(QUERIES, k=rng.choice((0, 0, 0, 1, 2))))
    scope = {
        "type": "http",
        "method": rng.choice(("POST", "POST", "POST", "POST", "POST", "GET", "BREW")),
        "path": path,
        "raw_path": b"",
        "query_string": query.encode("latin-1"),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    leaves = rng.random() < 0.05
    came = list(pieces(rng, body.raw))
    return scope, Exchange(came[: rng.randint(0, len(came))] if leaves else came, leaves)


async def asked(app: FastAPI, scope: dict[str, Any], exchange: Exchange) -> None:
    async with asyncio.timeout(PATIENCE):
        await app(scope | {"app": app}, exchange.receive, exchange.send)


async def test_every_damaged_request_is_answered() -> None:
    limits = Settings(max_body_bytes=2**20, max_decoded_bytes=2**20, memory_bytes=2**26)
    app = create_app(limits)
    counts: Counter[int] = Counter()
    async with ready(app) as client:
        good: dict[str, Any] = {
            "content": wire.npz_body(worked()),
            "headers": {"content-type": wire.NPZ},
        }
        before = (await client.post("/v1/cross_entropy", **good)).content
        for seed in range(REQUESTS):
            scope, exchange = request(random.Random(seed))
            try:
                await asked(app, scope, exchange)
                exchange.check()
            except Exception as error:
                error.add_note(f"request {seed}: {scope}")
                raise
            counts[exchange.status] += 1
        assert (await client.post("/v1/cross_entropy", **good)).content == before
    assert counts.keys() >= {200, 400, 404, 405, 406, 413, 415, 422}
    assert counts[200] > REQUESTS // 10
    assert app.state.service.budget.leased == 0
