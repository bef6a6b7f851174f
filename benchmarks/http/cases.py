"""Cases: the requests, the servers that they go to, and the error of each answer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numba
import numpy as np

from benchmarks import requests
from benchmarks.client import Answer, Client, Request
from benchmarks.http import peers
from benchmarks.http.measure import Contestant
from benchmarks.http.region import region
from benchmarks.http.saturation import Crowd
from benchmarks.machine import THREADS
from benchmarks.plain_read import read_and_sum
from benchmarks.problems import LARGE_BFLOAT16, Array, Case, Data, data_for
from benchmarks.server import Server, serving, started

Contestants = Mapping[str, Contestant]

OURS, LAST, SHARED = "lossd", "lossd, labels last", "lossd, shared memory"
SINK, READ = "raw recv_into sink", "plain read of the region"
BARE, PYTORCH = "bare FastAPI route", "FastAPI + PyTorch"
V2, SAFETENSORS = "lossd, V2 binary", "lossd, safetensors"
REPORT, LOSS = "lossd, report", "lossd, loss"
JSON = "application/json"

CONNECTIONS = 32
REQUESTS = 3200
_LARGE = Case((2000, 32000))  # 256 MB of float32
_REPORTED = LARGE_BFLOAT16  # 131 MB
_MIDDLE = Case((64, 1000))
_SMALL = Case((4, 5))


@dataclass(frozen=True)
class Servers:
    """The servers that are measured, each in a process of its own."""

    ours: Server
    peers: Server
    sink: Server


@contextmanager
def servers() -> Iterator[Servers]:
    """Run all servers for as long as the block lasts."""
    with (
        serving(LOSSD_LOG_LEVEL="warning", LOSSD_ALLOW_SHARED_MEMORY="true") as ours,
        started("benchmarks.http.peers") as others,
        started("benchmarks.http.sink", [str(_LARGE.nbytes * 2)]) as sink,
    ):
        yield Servers(ours, others, sink)


def _tensors(data: Data) -> dict[str, Any]:
    return {"labels": data.labels, "logits": data.logits}


def _contestant(
    stack: ExitStack,
    server: Server,
    request: Request,
    data: Data,
    loss: Callable[[Answer], float],
) -> Contestant:
    client = stack.enter_context(Client(server))
    return Contestant(
        lambda: client.exchange(request), lambda answer: data.loss_error(loss(answer))
    )


@contextmanager
def large(servers: Servers, quick: bool) -> Iterator[Contestants]:
    """A body of 256 MB, and the same in shared memory; the sink receives it and does no more."""
    numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))
    data = data_for(_LARGE.smaller() if quick else _LARGE)
    tensors = _tensors(data)
    binary = requests.v2(tensors)
    last = requests.v2(dict(reversed(tensors.items())))
    other = requests.v2(tensors, peers.BINARY)
    length = sum(map(len, binary.body))
    exact = float(data.logits.sum(dtype=np.float64))
    size = float(np.abs(data.logits).sum(dtype=np.float64))
    with ExitStack() as stack:
        shared = stack.enter_context(Client(servers.ours))
        whole = stack.enter_context(region(shared, "bench", tensors))
        numbers = whole[data.labels.nbytes :].view(np.float32)
        sink = stack.enter_context(Client(servers.sink))
        yield {
            OURS: _contestant(stack, servers.ours, binary, data, requests.v2_loss),
            LAST: _contestant(stack, servers.ours, last, data, requests.v2_loss),
            SINK: Contestant(
                lambda: sink.exchange(binary), lambda answer: abs(int(answer.body) - length)
            ),
            PYTORCH: _contestant(stack, servers.peers, other, data, requests.json_loss),
            SHARED: _contestant(
                stack,
                servers.ours,
                requests.v2_in_region("bench", tensors),
                data,
                requests.v2_loss,
            ),
            READ: Contestant(
                lambda: read_and_sum(numbers), lambda total: abs(total - exact) / size
            ),
        }


@contextmanager
def reported(servers: Servers, quick: bool) -> Iterator[Contestants]:
    """A body of 131 MB of bfloat16, streamed: its report, and its loss alone."""
    data = data_for(_REPORTED.smaller() if quick else _REPORTED)
    with ExitStack() as stack:
        yield {
            name: _contestant(
                stack,
                servers.ours,
                requests.safetensors(_tensors(data), path, JSON),
                data,
                requests.json_loss,
            )
            for name, path in ((REPORT, requests.REPORT), (LOSS, requests.V1))
        }


@contextmanager
def middle(servers: Servers, quick: bool) -> Iterator[Contestants]:
    """A JSON body of 64 x 1000 logits."""
    data = data_for(_MIDDLE)
    tensors = _tensors(data)
    ours = requests.json_text(tensors, requests.V1)
    other = requests.json_text(tensors, peers.JSON)
    with ExitStack() as stack:
        yield {
            OURS: _contestant(stack, servers.ours, ours, data, requests.json_loss),
            PYTORCH: _contestant(stack, servers.peers, other, data, requests.json_loss),
        }


@contextmanager
def small(servers: Servers, quick: bool) -> Iterator[Contestants]:
    """A JSON body of 4 x 5 logits, against a route that parses it and sends it back."""
    data = data_for(_SMALL)
    tensors = _tensors(data)
    ours = requests.json_text(tensors, requests.V1)
    other = requests.json_text(tensors, peers.JSON)
    echo = requests.json_text(tensors, peers.ECHO)
    with ExitStack() as stack:
        bare = stack.enter_context(Client(servers.peers))
        yield {
            OURS: _contestant(stack, servers.ours, ours, data, requests.json_loss),
            BARE: Contestant(lambda: bare.exchange(echo), partial(_echo_error, tensors)),
            PYTORCH: _contestant(stack, servers.peers, other, data, requests.json_loss),
        }


@contextmanager
def many(servers: Servers, quick: bool) -> Iterator[Contestants]:
    """Requests of 4 x 5 logits on many connections at once: a call sends ``REQUESTS``."""
    data = data_for(_SMALL)
    tensors = _tensors(data)
    v2, safetensors = requests.v2(tensors), requests.safetensors(tensors)
    echo = requests.json_text(tensors, peers.ECHO)
    with ExitStack() as stack:

        def crowd(server: Server, request: Request, error: Callable[[Answer], float]) -> Contestant:
            made = stack.enter_context(Crowd(server, request, CONNECTIONS))
            return Contestant(lambda: made.exchange(REQUESTS), error)

        yield {
            V2: crowd(servers.ours, v2, lambda answer: data.loss_error(requests.v2_loss(answer))),
            SAFETENSORS: crowd(
                servers.ours,
                safetensors,
                lambda answer: data.loss_error(requests.safetensors_loss(answer)),
            ),
            BARE: crowd(servers.peers, echo, partial(_echo_error, tensors)),
        }


def _echo_error(tensors: Mapping[str, Array], answer: Answer) -> float:
    sent = {name: array.tolist() for name, array in tensors.items()}
    return 0.0 if json.loads(requests.checked(answer).body) == sent else math.inf
