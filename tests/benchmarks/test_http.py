"""The benchmark's own arithmetic: who is let in, what is sent, what the tables say."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from benchmarks import requests
from benchmarks.__main__ import main
from benchmarks.client import Answer, Client, parsed_head, post
from benchmarks.http import main as wire
from benchmarks.http import peers
from benchmarks.http.measure import Contestant, Outcome, interleaved
from benchmarks.http.saturation import Crowd
from benchmarks.problems import Case, data_for
from benchmarks.processes import memory
from benchmarks.requests import large_request
from benchmarks.server import Server, started

DATA = data_for(Case((4, 5)))
TENSORS = {"labels": DATA.labels, "logits": DATA.logits}


@pytest.fixture(scope="module")
def sink() -> Iterator[Server]:
    with started("benchmarks.http.sink", [str(2**20)]) as server:
        yield server


def test_the_sink_receives_every_byte(sink: Server) -> None:
    with Client(sink) as client:
        for size in (0, 1, 2**17, 2**20):
            answer = client.exchange(post("/", [bytes(size // 2), bytes(size - size // 2)]))
            assert (answer.status, answer.body) == (200, str(size).encode())
    assert memory(sink.process, "VmHWM") >= memory(sink.process) > 2**20


def test_a_crowd_counts_what_is_answered(sink: Server) -> None:
    with Crowd(sink, post("/", [b"12345"]), 1) as crowd:
        assert crowd.exchange(100).body == b"5"


def test_a_crowd_that_is_refused_is_told_of() -> None:
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1", b"HTTP/1.1 503 No\r\n\r\n"]

    def answer(listening: socket.socket) -> None:
        for each in answers:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(each)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        server = Server(f"http://127.0.0.1:{listening.getsockname()[1]}", 1)
        with (
            Crowd(server, post("/", [b"12345"]), 1) as crowd,
            pytest.raises(RuntimeError, match="503"),
        ):
            crowd.exchange(1)
        thread.join()


def test_who_disagrees_or_fails_is_not_timed() -> None:
    def fail() -> Any:
        raise RuntimeError("answered 500")

    contestants = {
        "right": Contestant(lambda: DATA.per_element.mean(), DATA.loss_error),
        "wrong": Contestant(lambda: DATA.per_element.mean() + 1, DATA.loss_error),
        "nan": Contestant(lambda: math.nan, DATA.loss_error),
        "broken": Contestant(fail, DATA.loss_error),
    }
    outcomes = interleaved(contestants, rounds=2)
    assert [len(outcome.seconds) for outcome in outcomes.values()] == [2, 0, 0, 0]
    refusals = [str(outcomes[name].refused) for name in ("wrong", "nan", "broken")]
    assert all("DISAGREES" in each for each in refusals[:2])
    assert "answered 500" in refusals[2]


def answered(client: Any, whole: bytes) -> Answer:
    """Answer of ``client``'s application to a request as it is sent over a socket."""
    head, _, body = whole.partition(b"\r\n\r\n")
    path = head.split()[1].decode()
    _, headers = parsed_head(b"- 0\r\n" + head.partition(b"\r\n")[2])
    response = client.post(path, content=body, headers=headers)
    return Answer(response.status_code, dict(response.headers), response.content)


def test_the_bare_route_echoes_and_needs_no_pytorch() -> None:
    with TestClient(peers.create_app(None)) as client:
        whole = requests.json_text(TENSORS, peers.ECHO).head
        sent = {name: array.tolist() for name, array in TENSORS.items()}
        assert json.loads(answered(client, whole).body) == sent
        with pytest.raises(RuntimeError, match="answered 404"):
            requests.json_loss(answered(client, requests.json_text(TENSORS, peers.JSON).head))


def test_the_large_request_is_its_part_over_and_over() -> None:
    request, loss = large_request(quick=True)
    _, headers = parsed_head(b"- 0\r\n" + request.head.partition(b"\r\n")[2])
    assert sum(map(len, request.body)) == int(headers["content-length"]) > 10**8
    [labels, logits] = json.loads(bytes(request.body[0]))["inputs"]
    assert logits["parameters"]["binary_data_size"] == 4 * np.prod(logits["shape"])
    assert labels["shape"] == logits["shape"][:1]
    assert loss > 1


def test_ratios_are_of_medians() -> None:
    case = wire.Case(
        "it",
        no_contestants,
        lambda seconds: f"{seconds:.1f} s",
        (wire.Pair("share of", "a", "b", 0.5, 2.0), wire.Pair("of", "a", "b", 2.5, 1, of_it=True)),
    )
    outcomes = {"a": Outcome([2.0, 9.0, 1.0]), "b": Outcome([1.0]), "c": Outcome(refused="no")}
    bars = [wire._bar(pair, outcomes) for pair in case.pairs]
    assert [(bar.measured, bar.verdict) for bar in bars] == [(0.5, "bar"), (2.0, "bar")]
    lines = wire._lines(case, outcomes)
    assert lines[2].split() == ["a", "2.0", "s", "1.0", "s", "9.0", "s"]
    assert lines[4].endswith("no")


@contextmanager
def no_contestants(servers: Any, quick: bool) -> Iterator[dict[str, Contestant]]:
    with ExitStack():
        yield {}


@pytest.mark.parametrize("suite", ["http", "hostile"])
def test_an_unknown_case_is_told_of(suite: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([suite, "--case", "none such"]) == 2
    assert "no case is named none such; there are: " in capsys.readouterr().out


def test_one_case_runs_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hostile", "--quick", "--case", "gone"]) == 0
    assert "leased 1 s after 100 went in mid-body, bytes" in capsys.readouterr().out
