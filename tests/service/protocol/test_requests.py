"""A request is understood or refused, the same however it is cut."""

from __future__ import annotations

import random

import pytest

from service.protocol import Limits
from service.protocol.requests import Requests
from tests.service.protocol.messages import (
    CHUNKED,
    Answers,
    chunked,
    cuts,
    request,
    without_ids,
)
from tests.service.protocol.transport import exchange, problem

MALFORMED = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": request("Host: a", "Host: a"),
    "host with a path": request("Host: a/b"),
    "host with a user": request("Host: a@b"),
    "host with a query": request("Host: a?b#c"),
    "host with a space": request("Host: a b"),
    "host with a port that is none": request("Host: a:b"),
    "host with half an escape": request("Host: a%2"),
    "host that is half an address": request("Host: [::1"),
    "both lengths": request("Content-Length: 3", CHUNKED, body=b"abc"),
    "both lengths, the other way round": request(CHUNKED, "Content-Length: 3", body=b"abc"),
    "two lengths": request("Content-Length: 3", "Content-Length: 3", body=b"abc"),
    "a list of lengths": request("Content-Length: 3, 3", body=b"abc"),
    "a negative length": request("Content-Length: -3", body=b"abc"),
    "a length with a sign": request("Content-Length: +3", body=b"abc"),
    "no length": request("Content-Length: ", body=b"abc"),
    "a length beyond numbers": request("Content-Length: " + "9" * 30),
    "a folded header": request("X: a\r\n b"),
    "a space before the colon": request("X : a"),
    "a name with a space": request("X y: a"),
    "a control character": request("X: a\0b"),
    "a bare carriage return": request("X: a\rb"),
    "bare line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "an old version": b"GET /\r\n\r\n",
    "version 2": request(line="GET / HTTP/2.0"),
    "the preface of version 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version that is none": request(line="GET / HTTP/1.7"),
    "a method that is none": request(line="GRAB / HTTP/1.1"),
    "a tunnel": request(line="CONNECT a:1 HTTP/1.1"),
    "TLS": bytes.fromhex("16030100c8010000c40303"),
    "a path beyond ASCII": "GET /\u00e4 HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
    "another coding": request("Transfer-Encoding: gzip, chunked"),
    "an unknown coding": request("Transfer-Encoding: gzip"),
    "chunks in version 1.0": request(CHUNKED, body=chunked([b"a"]), line="POST / HTTP/1.0"),
    "a chunk size that is none": request(CHUNKED, body=b"x\r\n"),
    "a chunk size behind a line feed": request(CHUNKED, body=b"1\na\r\n0\r\n\r\n"),
    "a chunk longer than it says": request(CHUNKED, body=b"1\r\nab\r\n0\r\n\r\n"),
    "an upgrade with chunks that are none": request(
        "Connection: upgrade", "Upgrade: x", CHUNKED, body=b"x\r\n"
    ),
    "an upgrade with both lengths": request(
        "Connection: upgrade", "Upgrade: x", "Content-Length: 3", CHUNKED, body=b"abc"
    ),
    "an upgrade with two lengths": request(
        "Connection: upgrade", "Upgrade: x", "Content-Length: 3", "Content-Length: 4", body=b"abcd"
    ),
    "an upgrade with an unknown coding": request(
        "Connection: upgrade", "Upgrade: x", "Transfer-Encoding: chunked, x"
    ),
    "an upgrade in chunks in version 1.0": request(
        "Connection: upgrade", "Upgrade: x", CHUNKED, body=chunked([b"a"]), line="POST / HTTP/1.0"
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_no_request_is_a_400_however_it_is_cut(name: str) -> None:
    answered = []
    for pieces in cuts(MALFORMED[name], seed=1):
        sent, wire, echo = await exchange(pieces)
        assert problem(wire)["type"] == "urn:lossd:problem:malformed-request"
        assert not echo.bodies
        answered.append(without_ids(sent))
        await wire.hang_up()
    assert len(set(answered)) == 1


@pytest.mark.parametrize(
    "fields",
    [
        ["Host: a"],
        ["Host: a:80"],
        ["Host: [::1]:80"],
        ["Host: 127.0.0.1:"],
        ["Host: xn--a-b_c.example"],
        ["Host:"],
        ["Host: a", "Expect: 100-continue"],
        ["Host: a", "Connection: keep-alive"],
    ],
)
async def test_what_is_a_request_is_answered_however_it_is_cut(fields: list[str]) -> None:
    data = request(*fields, body=b"x" * 3000)

    for pieces in cuts(data + data, seed=2):
        sent, wire, echo = await exchange(pieces)
        answers = Answers(sent.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))
        assert answers.statuses == [200, 200]
        assert echo.bodies == answers.bodies == [b"x" * 3000] * 2
        assert wire.open


async def test_version_1_0_needs_no_host_and_ends_with_the_answer() -> None:
    sent, wire, _ = await exchange([b"GET / HTTP/1.0\r\n\r\n"])
    assert Answers(sent).headers[0]["connection"] == "close"
    assert wire.lost


async def test_a_header_may_have_as_many_bytes_as_the_limit() -> None:
    limits = Limits(header_bytes=1000)

    for size, status in ((1000, 200), (1001, 431)):
        data = request("X: " + "x" * (size - len(request("X: "))))
        assert len(data) == size
        for pieces in cuts(data, seed=3):
            sent, wire, _ = await exchange(pieces, limits)
            assert Answers(sent).statuses == [status]
            if status == 431:
                assert problem(wire)["type"] == "urn:lossd:problem:header-too-large"


async def test_a_header_may_have_as_many_fields_as_the_limit() -> None:
    for count, status in ((100, 200), (101, 431)):
        data = request(*[f"X{number}: y" for number in range(count - 1)])
        for pieces in cuts(data, seed=4):
            sent, _, _ = await exchange(pieces)
            assert Answers(sent).statuses == [status]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nX: " + b"x" * 2**23,
        b"GET / HTTP/1.1\r\n" + b"x" * 2**23,
        b"GET /" + b"x" * 2**23,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50_000,
        b"\r\n" * 2**22,
    ],
    ids=["value", "name", "path", "count", "empty lines"],
)
async def test_a_header_without_an_end_is_refused_after_the_limit(data: bytes) -> None:
    sent, wire, echo = await exchange([data])
    assert Answers(sent).statuses == [431]
    assert problem(wire)["type"] == "urn:lossd:problem:header-too-large"
    assert not echo.scopes


async def test_anything_is_answered_the_same_however_it_is_cut() -> None:
    rng = random.Random(8)
    known = [
        *MALFORMED.values(),
        request(body=b"x" * 50),
        request(CHUNKED, body=chunked([b"abc", b"defgh"], trailers=b"X: y\r\n")),
        request("Connection: close", body=b"last"),
        request("Connection: upgrade", "Upgrade: x", body=b"x" * 20),
        request("Connection: upgrade", "Upgrade: x", CHUNKED, body=chunked([b"abc", b"defgh"])),
        request("Expect: 100-continue", body=b"x" * 20),
        request(line="GET /?a=b HTTP/1.1"),
        request(body=b"x" * 100_000),
        b"\r\n",
    ]

    statuses = set()
    for _ in range(400):
        data = bytearray(b"".join(rng.choices(known, k=rng.randrange(1, 4))))
        for _ in range(rng.randrange(3)):
            data[rng.randrange(min(len(data), 300))] = rng.randrange(256)
        answered = []
        for pieces in list(cuts(bytes(data), rng.randrange(1000)))[:2]:
            sent, wire, _ = await exchange(pieces)
            sent = without_ids(sent)
            answered.append(sent.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))
            await wire.hang_up()
        assert answered[0] == answered[1], bytes(data)
        statuses |= set(Answers(answered[0]).statuses)
    assert statuses == {200, 400}


@pytest.mark.parametrize("callback", ["on_url", "on_header", "on_headers_complete", "on_body"])
async def test_memory_that_the_server_lacks_is_a_503(
    monkeypatch: pytest.MonkeyPatch, callback: str
) -> None:
    def lacking(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Requests, callback, lacking)

    _, wire, _ = await exchange([request("Host: a", "Content-Length: 3", body=b"abc")])
    answer = problem(wire)
    assert (answer["status"], answer["type"]) == (503, "urn:lossd:problem:out-of-memory")
