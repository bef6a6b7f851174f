"""A fleet of servers that refuse, fail, hang and lie: of a transport without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from kernels import InvalidInput, dtypes
from service import VERSION
from service.bulk.executors import fleet as fleets
from service.bulk.executors.fleet import Failed, Fleet
from service.bulk.executors.inference import HEADER_LENGTH, PATH, TERMS, Request
from service.bulk.executors.server import servers_of
from service.errors import InvalidOption
from tests.service.bulk.executors.test_inference import answer_of, asked, problem_of

Handler = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]
ONE, TWO = "http://one:8000", "https://two/lossd"
REQUEST = asked(problem_of("flat", dtypes.FLOAT32))


def right(request: Request = REQUEST, status: int = 200) -> httpx.Response:
    text = answer_of(request)
    body = text + bytes(sum(request.sizes.values()))
    return httpx.Response(status, content=body, headers={HEADER_LENGTH: str(len(text))})


def problem(status: int, **members: Any) -> httpx.Response:
    headers = {"Retry-After": "0"} if status == 503 else {}
    return httpx.Response(status, json={"detail": "said why", **members}, headers=headers)


async def fleet_of(handler: Handler, *urls: str) -> Fleet:
    fleet = Fleet(servers_of(urls or (ONE, TWO)), "secret")
    await fleet.close()
    fleet._client = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    return fleet


class Hosts:
    """Answers by host: each list is used up, and its last one stays."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def answer(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path.endswith(PATH)
        assert len(await request.aread()) == int(request.headers["Content-Length"])
        self.asked.append(request.url.host)
        left = self.answers[request.url.host]
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return right()
        assert isinstance(answer, httpx.Response)
        return answer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "_REST", 0.001)
    monkeypatch.setattr(fleets, "_LONGEST_REST", 0.004)


async def test_the_least_busy_server_is_asked() -> None:
    hosts = Hosts(one=[0.02], two=[0.02])
    fleet = await fleet_of(hosts.answer)
    await asyncio.gather(*(fleet.arrays(REQUEST) for _ in range(6)))
    assert sorted(hosts.asked) == ["one"] * 3 + ["two"] * 3
    assert [server.busy for server in fleet.servers] == [0, 0]


@pytest.mark.parametrize(
    "first",
    [
        problem(503),
        problem(429),
        problem(500),
        httpx.Response(502, content=b"<html>"),
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("gone"),
        httpx.ReadTimeout("silent"),
        httpx.Response(200, content=b"{}", headers={HEADER_LENGTH: "2"}),
        httpx.Response(200, content=bytes(10**6), headers={HEADER_LENGTH: "2"}),
    ],
    ids=repr,
)
async def test_a_request_is_sent_again_where_it_failed(
    first: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleets, "_REST", 10.0)
    monkeypatch.setattr(fleets, "_LONGEST_REST", 10.0)
    hosts = Hosts(one=[first, right()], two=[right()])
    fleet = await fleet_of(hosts.answer)
    arrays = await fleet.arrays(REQUEST)
    assert arrays["losses"].tolist() == [0.0] * 9
    assert hosts.asked[:2] == ["one", "two"]  # another one, while the first is left alone


async def test_a_busy_server_is_asked_as_often_as_it_takes() -> None:
    hosts = Hosts(one=[*[problem(503)] * 20, right()])
    await (await fleet_of(hosts.answer, ONE)).arrays(REQUEST)
    assert len(hosts.asked) == 21


async def test_retry_after_is_kept() -> None:
    busy = httpx.Response(503, headers={"Retry-After": "7"}, json={"detail": "later"})
    fleet = await fleet_of(Hosts(one=[busy], two=[right()]).answer)
    await fleet.arrays(REQUEST)
    one, two = fleet.servers
    assert 6 < one.rests_until - asyncio.get_running_loop().time() <= 7
    assert two.rests_until == 0.0


async def test_a_request_that_fails_everywhere_is_given_up() -> None:
    hosts = Hosts(one=[problem(500)], two=[httpx.ReadError("reset")])
    with pytest.raises(Failed, match=r"(said why|reset); given up after 5 failures"):
        await (await fleet_of(hosts.answer)).arrays(REQUEST)
    assert len(hosts.asked) == 5


async def test_servers_that_are_never_there_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "PATIENCE", 0.05)
    hosts = Hosts(one=[httpx.ConnectError("refused")])
    with pytest.raises(Failed, match="no server has answered for"):
        await (await fleet_of(hosts.answer, ONE)).arrays(REQUEST)


async def test_a_refusal_is_the_reason_of_the_request() -> None:
    hosts = Hosts(one=[problem(422, field="labels", position=[3])], two=[right()])
    with pytest.raises(InvalidInput, match=r"^said why$") as raised:
        await (await fleet_of(hosts.answer)).arrays(REQUEST)
    assert (raised.value.field, raised.value.position) == ("labels", (3,))
    assert hosts.asked == ["one"]
    hosts = Hosts(one=[httpx.Response(413, content=b"too large")])
    with pytest.raises(InvalidInput, match=r"one:8000 answers 413: too large"):
        await (await fleet_of(hosts.answer, ONE)).arrays(REQUEST)


async def test_a_slow_request_is_sent_twice_and_the_first_answer_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleets, "_SLOW_SECONDS", 0.01)
    hosts = Hosts(one=[*[right()] * 5, 600.0], two=[right()])
    fleet = await fleet_of(hosts.answer, ONE)
    for _ in range(5):
        await fleet.arrays(REQUEST)
    fleet.servers += servers_of([TWO])
    assert (await fleet.arrays(REQUEST))["weights"].tolist() == [0.0] * 9
    assert fleet.hedged == 1
    assert hosts.asked[-2:] == ["one", "two"]
    assert [server.busy for server in fleet.servers] == [0, 0]


async def test_a_slow_request_outlives_a_second_one_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleets, "_SLOW_SECONDS", 0.01)
    hosts = Hosts(one=[*[right()] * 5, 0.1], two=[problem(500)])
    fleet = await fleet_of(hosts.answer, ONE)
    for _ in range(5):
        await fleet.arrays(REQUEST)
    fleet.servers += servers_of([TWO])
    await fleet.arrays(REQUEST)
    assert (fleet.hedged, fleet.repeated) == (1, 0)


async def test_a_cancelled_request_leaves_no_one_busy() -> None:
    fleet = await fleet_of(Hosts(one=[600.0], two=[600.0]).answer)
    task = asyncio.create_task(fleet.arrays(REQUEST))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [server.busy for server in fleet.servers] == [0, 0]


OUTPUTS = {"outputs": [{"name": name} for name in TERMS.values()]}


@pytest.mark.parametrize(
    ("about", "model", "said"),
    [
        ((200, {"name": "triton", "version": "1"}), (200, OUTPUTS), "is no lossd server"),
        ((200, "text"), (200, OUTPUTS), "is no lossd server"),
        ((200, {"name": "lossd", "version": "0.0.1"}), (200, OUTPUTS), "is lossd 0.0.1"),
        ((401, {"detail": "no token"}), (401, {}), "answers 401: no token"),
        ((404, {}), (404, {}), "answers 404"),
        (
            (200, {"name": "lossd", "version": VERSION}),
            (200, {"outputs": [{"name": "loss"}]}),
            "does not have the outputs loss_float64, loss_weight",
        ),
    ],
)
async def test_a_server_of_another_kind_is_refused(
    about: tuple[int, Any], model: tuple[int, Any], said: str
) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        status, content = about if request.url.path == "/v2" else model
        return httpx.Response(status, json=content)

    with pytest.raises(InvalidOption, match=said):
        await (await fleet_of(answer, ONE)).check()


async def test_a_server_that_cannot_be_reached_is_left_for_later_if_one_can() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "one":
            raise httpx.ConnectError("refused")
        is_server = request.url.path.endswith("/v2")
        return httpx.Response(
            200, json={"name": "lossd", "version": VERSION} if is_server else OUTPUTS
        )

    await (await fleet_of(answer)).check()
    with pytest.raises(InvalidOption, match=r"one:8000 cannot be reached \(refused\)"):
        await (await fleet_of(answer, ONE)).check()


@pytest.mark.parametrize(
    "urls",
    [
        [""], ["localhost:8000"], ["ftp://one"], ["http://"], ["http://one:99999"], ["http://[one"],
        ["http://me:secret@one"], ["http://one?token=2"], [], [ONE, ONE + "/"],
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_list_of_urls_is_refused(urls: list[str]) -> None:
    with pytest.raises(InvalidOption) as raised:
        servers_of(urls)
    assert raised.value.field == "servers"


def test_the_token_is_sent() -> None:
    async def made() -> Any:
        fleet = Fleet(servers_of([ONE]), "secret")
        await fleet.close()
        return fleet._client.headers["authorization"]

    assert asyncio.run(made()) == "Bearer secret"


def test_a_request_has_one_value_a_position() -> None:
    assert REQUEST.arrays["losses"] == np.float64
