"""CPU time that a byte, and a request below 1 MB, can cost in each format and coding."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from contextlib import suppress

import numpy as np

from benchmarks import requests
from benchmarks.bars import Bar
from benchmarks.client import Client, Request
from benchmarks.hostile.costly import SIZE, Attack, head_attacks, json_attacks, v1, v2_request
from benchmarks.hostile.costly_binary import binary_attacks
from benchmarks.hostile.costly_v2 import v2_attacks
from benchmarks.problems import Array
from benchmarks.processes import cpu_seconds
from benchmarks.server import Server, serving
from service.codecs import npz
from service.codecs import safetensors as safetensors_codec

# Bar and goal of a byte, and of a request.
_MICROSECONDS = (2.0, 0.5)
_MILLISECONDS = (100.0, 50.0)
_ROUNDS = 5
_SETTLED_SECONDS = 0.02  # after an answer, until the server has let go of its request


def attacks() -> list[Attack]:
    """Costly requests of every format; their bodies are made when asked for."""
    return [*json_attacks(), *v2_attacks(), *binary_attacks(), *head_attacks()]


def work(quick: bool = False) -> list[Bar]:
    """Two bars for each format and coding: the costliest of its attacks.

    The cost of a connection with the format's smallest request, 0.5 to 1 ms, is subtracted.
    """
    costs: dict[str, list[tuple[float, int, str]]] = {}
    with serving(LOSSD_LOG_LEVEL="critical") as server:
        rounds = 1 if quick else _ROUNDS
        smallest = {
            form: _seconds(server, request, 4 * _ROUNDS) for form, request in _smallest().items()
        }
        for attack in attacks():
            request = attack.make()
            seconds = max(0.0, _seconds(server, request, rounds) - smallest[attack.form])
            costs.setdefault(attack.form, []).append((seconds, len(request.head), attack.name))
    return [bar for form, found in costs.items() for bar in _bars(form, found)]


def _smallest() -> dict[str, Request]:
    arrays: dict[str, Array] = {
        "logits": np.zeros((1, 2), np.float32),
        "labels": np.zeros(1, np.int64),
    }
    first = {name: array.tolist() for name, array in arrays.items()}
    plain = v1(json.dumps(first).encode())
    inputs = [requests.entry(name, array) | {"data": first[name]} for name, array in arrays.items()]
    text = json.dumps({"inputs": inputs}).encode()
    return {
        "JSON": plain,
        "head": plain,
        "V2 JSON": v2_request(text),
        "V2 gzip": v2_request(gzip.compress(text), content_encoding="gzip"),
        "V2 deflate": v2_request(zlib.compress(text), content_encoding="deflate"),
        "npz": v1(npz.CODEC.encode(arrays), "x-npz"),
        "safetensors": v1(safetensors_codec.encode(arrays), "x-safetensors"),
    }


def _seconds(server: Server, request: Request, rounds: int) -> float:
    """CPU seconds of the server for the request on a fresh connection: the least of ``rounds``."""
    taken = []
    for _ in range(rounds):
        before = cpu_seconds(server.process)
        with suppress(OSError), Client(server) as client:
            client.exchange(request)
        time.sleep(_SETTLED_SECONDS)
        taken.append(cpu_seconds(server.process) - before)
    return min(taken)


def _bars(form: str, found: list[tuple[float, int, str]]) -> list[Bar]:
    byte, of_byte = max((seconds / size * 1e6, name) for seconds, size, name in found)
    whole, of_whole = max((seconds * 1e3, name) for seconds, size, name in found if size < 2 * SIZE)
    return [
        Bar(f"{form}: CPU for a byte, us", *_MICROSECONDS, byte, of_byte, True, ".3f"),
        Bar(f"{form}: CPU for a request, ms", *_MILLISECONDS, whole, of_whole, True, ".1f"),
    ]
