"""Service on a GPU, from its clients' side: ``python -m benchmarks.cuda.service``.

Demo, a body of 1 GiB, many clients at once, a budget that is too small, and a GPU that fails. Each
is tried by itself and gives a figure.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import numpy as np

from benchmarks import demo
from benchmarks.cuda.fault import DEADLY
from benchmarks.cuda.figures import put
from benchmarks.server import Server, serving, started
from kernels.cuda.kinds import SIMULATED
from kernels.devices import why_no_gpu

Array = np.ndarray[Any, Any]

_CUDA = ("--device", "cuda", "--log-level", "warning")
# Rows and classes of float32: a gigabyte and some.
_LARGE = (8, 60) if SIMULATED else (2048, 131072)
_CLIENTS = 32
_EACH = 1 if SIMULATED else 20  # requests of a client
_SHAPES = ((4, 5), (9, 40)) if SIMULATED else ((4, 5), (256, 1000), (64, 32000))
_BUDGET = 200_000  # bytes of the device: a row of 32,768 float32 is none of them
_FAILED = 4  # the status of a process whose GPU failed


def _body(logits: Array, labels: Array) -> tuple[bytes, dict[str, str]]:
    """A V2 request whose tensors are binary, and its headers."""
    inputs = [
        {"name": name, "shape": array.shape, "datatype": kind,
         "parameters": {"binary_data_size": array.nbytes}}
        for name, array, kind in (("labels", labels, "INT64"), ("logits", logits, "FP32"))
    ]  # fmt: skip
    head = json.dumps({"inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return head + labels.tobytes() + logits.tobytes(), headers


def _post(server: Server, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    """The status, and the answer's JSON."""
    connection = HTTPConnection(*server.address, timeout=120)
    try:
        connection.request("POST", "/v2/models/cross_entropy/infer", body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def _loss(answer: Any) -> float:
    return float(answer["outputs"][0]["data"][0])


def _data(shape: tuple[int, ...], seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape, np.float32), rng.integers(0, shape[1], shape[0])


def _exact(logits: Array, labels: Array) -> float:
    """The mean loss, summed in float64."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        largest = float(row.max())
        total += np.log(np.exp(row - largest).sum(dtype=np.float64)) + largest - float(row[label])
    return total / len(labels)


def _state(server: Server) -> Any:
    connection = HTTPConnection(*server.address, timeout=30)
    connection.request("GET", "/readyz")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def _idle(server: Server) -> bool:
    """True once nothing is leased; waits a second for it."""
    for _ in range(20):
        if _state(server).get("leased_bytes") == 0:
            return True
        time.sleep(0.05)
    return False


def examples(server: Server) -> dict[str, Any]:
    """The demo's three examples, which check their numbers themselves."""
    client = demo.Client(server.url)
    demo.worked(client)
    if SIMULATED:
        return {"worked example": client.seconds}
    random = np.random.default_rng(0)
    demo.images(client, random)
    demo.language_model(client, random)
    return {"a language model's batch again, seconds": client.seconds}


def large_body(server: Server) -> dict[str, Any]:
    """A V2 body of a gigabyte, three times."""
    logits, labels = _data(_LARGE)
    body, headers = _body(logits, labels)
    want, seconds = _exact(logits, labels), []
    for _ in range(3):
        start = time.perf_counter()
        status, answer = _post(server, body, headers)
        seconds.append(time.perf_counter() - start)
        assert status == 200, answer
        assert abs(_loss(answer) - want) <= 1e-5 * want, (_loss(answer), want)
    best = min(seconds)
    return {"seconds": seconds, "bytes per second": len(body) / best, "idle": _idle(server)}


def many_clients(server: Server) -> dict[str, Any]:
    """Clients at once, each with requests of all sizes; every loss is compared."""
    kinds = []
    for seed, shape in enumerate(_SHAPES):
        logits, labels = _data(shape, seed)
        kinds.append((*_body(logits, labels), _exact(logits, labels)))

    def client(number: int) -> list[tuple[float, int]]:
        times = []
        for turn in range(_EACH):
            body, headers, want = kinds[(number + turn) % len(kinds)]
            start = time.perf_counter()
            status, answer = _post(server, body, headers)
            times.append((time.perf_counter() - start, status))
            if status == 200:
                assert abs(_loss(answer) - want) <= 1e-5 * want, (_loss(answer), want)
        return times

    start = time.perf_counter()
    with ThreadPoolExecutor(_CLIENTS) as pool:
        all_times = [each for times in pool.map(client, range(_CLIENTS)) for each in times]
    took = time.perf_counter() - start
    seconds = sorted(each for each, _ in all_times)
    statuses = {str(status): 0 for _, status in all_times}
    for _, status in all_times:
        statuses[str(status)] += 1
    assert set(statuses) <= {"200", "503"}, statuses
    return {
        "requests per second": len(all_times) / took, "statuses": statuses,
        "median, seconds": statistics.median(seconds), "slowest, seconds": seconds[-1],
        "idle": _idle(server),
    }  # fmt: skip


def _small_budget() -> dict[str, Any]:
    """503 for what does not fit, and everything is free afterwards."""
    options = ("--device-memory-bytes", str(_BUDGET))
    with serving(*_CUDA, *options) as server:
        refused = []
        for _ in range(3):
            status, answer = _post(server, *_body(*_data((1, 32768))))
            assert status == 503, (status, answer)
            refused.append(answer.get("error", ""))
        status, answer = _post(server, *_body(*_data((1, 50))))
        assert status == 200, answer
        assert _idle(server)
    return {"refused": refused[0], "the next one": status}


def _killed_context() -> dict[str, Any]:
    """503 ``device-failed``, not ready, and the process ends with status 4."""
    options = ("serve", "--port", "0", *_CUDA)
    seen: dict[str, Any] = {}
    try:
        with started("benchmarks.cuda.fault", options, LOSSD_HOST="127.0.0.1") as server:
            assert _post(server, *_body(*_data((2, 5))))[0] == 200
            start = time.perf_counter()
            status, answer = _post(server, *_body(*_data((2, DEADLY))))
            seen |= {"status": status, "error": answer.get("error", "")}
            while time.perf_counter() - start < 30:
                try:
                    _state(server)
                except OSError:
                    break
                time.sleep(0.1)
            seen["seconds to the end"] = time.perf_counter() - start
    except RuntimeError as error:  # its process did not end with status 0, as it should not
        seen["ended with 4"] = f"(status {_FAILED})" in str(error)
        if not seen["ended with 4"]:
            seen["how it ended"] = str(error)[-2000:]
    assert (seen.get("status"), seen.get("ended with 4")) == (503, True), seen
    return seen


@contextmanager
def _ready() -> Iterator[Server]:
    """A server on the GPU; the seconds of its start are a figure."""
    start = time.perf_counter()
    limits = ("--max-body-bytes", str(2**31), "--max-decoded-bytes", str(2**31))
    with serving(*_CUDA, *limits) as server:
        put("seconds to ready", time.perf_counter() - start)
        start = time.perf_counter()
        put("device", _state(server).get("device"))
        assert _post(server, *_body(*_data((4, 5))))[0] == 200
        put("seconds of the first request", time.perf_counter() - start)
        yield server


def _tried(name: str, call: Callable[[], dict[str, Any]]) -> bool:
    """Call ``call`` and put its figures, or its error; returns whether it raised none."""
    start = time.perf_counter()
    try:
        found: dict[str, Any] = {"ok": True, **call()}
    except Exception as error:
        traceback.print_exc()
        found = {"ok": False, "why": f"{type(error).__name__}: {error}"[:1000]}
    put(name, {**found, "took": time.perf_counter() - start})
    return bool(found["ok"])


def _served() -> dict[str, Any]:
    with _ready() as server:
        tries = {
            call.__name__: _tried(call.__name__.replace("_", " "), lambda: call(server))  # noqa: B023
            for call in (examples, large_body, many_clients)
        }
    assert all(tries.values()), tries
    return tries


def main() -> int:
    """Run everything; returns 0 where all of it is right."""
    why = why_no_gpu()
    if why is not None:
        put("why no gpu", why)
        return 1
    calls = {"one server": _served, "small budget": _small_budget, "killed": _killed_context}
    # At once: a start compiles the kernels, for longer than all the requests take.
    with ThreadPoolExecutor(len(calls)) as pool:
        return int(not all(list(pool.map(_tried, calls, calls.values()))))


if __name__ == "__main__":
    sys.exit(main())
