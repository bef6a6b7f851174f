"""Over a socket, to ``lossd serve`` in a process of its own: what only a server can get wrong."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Coroutine
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from kernels import dtypes
from tests import zoo
from tests.service import wire
from tests.service.cases import FORMATS, LABELS, tensors_for, worked

CONNECTIONS = 32
PATIENCE = 120  # seconds until a test that hangs fails
HEADERS = {"content-type": wire.NPZ, "accept": wire.NPZ}


@pytest.fixture
def http(live_server: httpx.URL) -> Any:
    with httpx.Client(base_url=live_server, timeout=PATIENCE, trust_env=False) as client:
        yield client


def within_patience(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await work

    asyncio.run(bounded())


def raw(url: httpx.URL, request: bytes, *, end: bool = False) -> bytes:
    """All that the server answers to ``request`` until it closes, or to the end of a problem."""
    with socket.create_connection((url.host, url.port or 80), timeout=PATIENCE) as connection:
        connection.sendall(request)
        if end:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65536):
            received += piece
            body = received.partition(b"\r\n\r\n")[2]
            if body.endswith(b"}\n"):
                break
        return received


def head(path: str, *fields: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: lossd", f"Content-Type: {wire.NPZ}", *fields, "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("row", dtypes.INTEGERS, ids=lambda row: row.name)
def test_every_format_gives_the_same_bits(
    http: httpx.Client, dtype: dtypes.DType, row: dtypes.DType
) -> None:
    rng = np.random.default_rng([dtype.size, row.size])
    tensors = {
        "logits": zoo.cast(rng.normal(0, 5, (37, 101)), dtype),
        "labels": rng.integers(0, 101, 37).astype(row.numpy),
        "weight": zoo.cast(rng.random(101), dtype),
    }
    answers: dict[str, bytes] = {}
    for name, build in wire.BODIES.items():
        headers = {"content-type": wire.MEDIA_TYPES[name], "accept": wire.NPZ}
        response = http.post("/v1/cross_entropy", content=build(tensors), headers=headers)
        answered = wire.tensors_of(response)
        answers[name] = answered["loss"].tobytes() + answered["per_element"].tobytes()
    assert len(set(answers.values())) == 1


def test_32_connections_at_once_with_mixed_requests(live_server: httpx.URL) -> None:
    rng = random.Random(5)
    logits = np.random.default_rng(6).normal(0, 3, (256, 1000)).astype(np.float32)
    large: dict[str, wire.Array] = {"logits": logits, "labels": np.arange(256)}
    payloads: list[tuple[str, dict[str, wire.Array]]] = [
        ("/v1/nll_loss", tensors_for("/v1/nll_loss")),
        ("/v1/softmax", tensors_for("/v1/softmax")),
        ("/v1/explain", worked()),
        ("/v1/cross_entropy", large),
        ("/v1/cross_entropy", worked() | {"labels": LABELS + 5}),
    ]
    requests: list[tuple[str, str, bytes | None]] = [
        (path, wire.MEDIA_TYPES[sent], wire.BODIES[sent](tensors))
        for path, tensors in payloads
        for sent in FORMATS
    ]
    requests += [("/v1/softmax", wire.NPZ, b"PK nonsense"), ("/healthz", "", None)]

    async def send(client: httpx.AsyncClient, number: int) -> tuple[int, int, bytes]:
        path, media_type, body = requests[number]
        if body is None:
            response = await client.get(path)
        else:
            headers = {"content-type": media_type}
            response = await client.post(path, content=body, headers=headers)
        return number, response.status_code, response.content

    async def connection(order: list[int]) -> list[tuple[int, int, bytes]]:
        async with httpx.AsyncClient(
            base_url=live_server, timeout=PATIENCE, trust_env=False
        ) as client:
            return [await send(client, number) for number in order]

    async def run() -> None:
        alone = await connection(list(range(len(requests))))
        orders = [rng.sample(range(len(requests)), len(requests)) for _ in range(CONNECTIONS)]
        for answers in await asyncio.gather(*map(connection, orders)):
            assert sorted(answers) == alone
        assert {status for _, status, _ in alone} == {200, 400, 422}

    within_patience(run())


def test_a_chunked_body_is_the_same_body(http: httpx.Client) -> None:
    body = wire.npz_body(worked())
    whole = http.post("/v1/cross_entropy", content=body, headers=HEADERS)
    for size in (1, 97, 4096):
        pieces = (body[start : start + size] for start in range(0, len(body), size))
        chunked = http.post("/v1/cross_entropy", content=pieces, headers=HEADERS)
        assert chunked.content == whole.content


def test_the_limit_of_the_body_holds_whether_declared_or_not(
    http: httpx.Client, live_server: httpx.URL
) -> None:
    answer = raw(live_server, head("/v1/softmax", "Content-Length: 99999999999"))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 413
    pieces = (bytes(2**20) for _ in range(17))
    wire.problem_of(http.post("/v1/softmax", content=pieces, headers=HEADERS), 413)


def test_nobody_is_asked_to_send_what_will_be_refused(live_server: httpx.URL) -> None:
    expect = "Expect: 100-continue"
    for path, length, status in (
        ("/v1/softmax", "99999999999", 413),
        ("/v1/softmax?oops=1", "10", 422),
        ("/v1/nothing", "10", 404),
    ):
        answer = raw(live_server, head(path, f"Content-Length: {length}", expect))
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize(
    "fields",
    [
        ["Content-Length: -1"],
        ["Content-Length: 1", "Content-Length: 2"],
        ["Content-Length: x"],
        ["Content-Length: 10", "Transfer-Encoding: chunked"],
    ],
)
def test_a_length_that_is_no_length_is_a_400(live_server: httpx.URL, fields: list[str]) -> None:
    assert raw(live_server, head("/v1/softmax", *fields) + bytes(10)).startswith(b"HTTP/1.1 400 ")


def test_clients_that_go_away_leave_no_trace(http: httpx.Client, live_server: httpx.URL) -> None:
    body = wire.npz_body(worked())
    whole = head("/v1/cross_entropy", f"Content-Length: {len(body)}") + body
    for cut in (10, 60, len(whole) - len(body), len(whole) - len(body) // 2, len(whole) - 1):
        assert raw(live_server, whole[:cut], end=True) == b""
    for _ in range(20):
        with socket.create_connection((live_server.host, live_server.port or 80)) as connection:
            connection.sendall(whole)
    assert http.post("/v1/cross_entropy", content=body, headers=HEADERS).status_code == 200
    assert http.get("/readyz").json()["status"] == "ready"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/v1/nothing", {}, 404),
        ("GET", "/v1/softmax", {}, 405),
        ("POST", "/v1/softmax", {}, 415),
        ("POST", "/v1/softmax", {"content-type": "text/csv"}, 415),
        ("POST", "/v1/softmax", {"content-type": wire.NPZ, "content-encoding": "gzip"}, 415),
        ("POST", "/v1/softmax", {"content-type": wire.NPZ, "accept": "text/csv"}, 406),
        ("POST", "/v1/softmax", {"content-type": wire.NPZ}, 400),
        ("POST", "/v1/softmax?x=1", {"content-type": wire.NPZ}, 422),
    ],
)
def test_errors_are_problems_over_a_socket_too(
    http: httpx.Client, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    response = http.request(method, path, headers=headers)
    wire.problem_of(response, status)
    assert "server" not in response.headers


@pytest.mark.parametrize("path", ["/healthz", "/docs/swagger-ui-bundle.js"])
def test_a_connection_goes_on_after_head_and_options(http: httpx.Client, path: str) -> None:
    for _ in range(2):
        head, get = http.head(path), http.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) == len(get.content)
        assert http.options(path).headers["allow"] == "GET, HEAD, OPTIONS"


def test_head_ends_with_its_header_and_the_server_has_options(live_server: httpx.URL) -> None:
    for line, status in (("HEAD /docs HTTP/1.0", 200), ("OPTIONS * HTTP/1.0", 204)):
        answer = raw(live_server, f"{line}\r\n\r\n".encode())
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert answer.endswith(b"\r\n\r\n")
        assert answer.count(b"\r\n\r\n") == 1
