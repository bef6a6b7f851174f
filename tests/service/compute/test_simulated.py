"""Real servers: on Numba's simulated GPU, where there is none, and for the CPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

from benchmarks.server import Server, started
from kernels import devices
from tests import zoo
from tests.service import wire
from tests.service.cases import ANSWERS, tensors_for
from tests.service.conftest import ROOT
from tests.service.process.workers import until, workers

WITHOUT_GPU = pytest.mark.skipif(devices.why_no_gpu() is None, reason="there is a GPU here")
PATIENCE = 60  # seconds
DEADLY = 13  # classes, as in ``simulated``: which needs the simulator to be imported
BUDGET = 200_000  # bytes of the simulated device: a row of 32,768 float32 is none of them


@contextmanager
def serving(module: str, *arguments: str, **environment: str) -> Iterator[Server]:
    with started(module, ("serve", "--port", "0", *arguments), **environment) as server:
        yield server


@contextmanager
def simulating(*arguments: str) -> Iterator[Server]:
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    options = ("--device", "cuda", "--device-memory-bytes", str(BUDGET), *arguments)
    with serving("tests.service.compute.simulated", *options, NUMBA_ENABLE_CUDASIM="1") as server:
        yield server


@contextmanager
def client_of(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def on_a_gpu() -> Iterator[httpx.Client]:
    with simulating() as server, client_of(server) as client:
        yield client


def posted(client: httpx.Client, path: str, tensors: dict[str, wire.Array]) -> httpx.Response:
    return client.post(path, content=wire.npz_body(tensors), headers={"content-type": wire.NPZ})


def row_of(classes: int) -> dict[str, wire.Array]:
    return {"logits": np.zeros((1, classes), np.float32), "labels": np.zeros(1, np.int64)}


@pytest.mark.parametrize("path", ANSWERS)
def test_a_gpu_gives_the_numbers_of_the_cpu(on_a_gpu: httpx.Client, path: str) -> None:
    """To the last place or two; and those that were asked for are not the other's."""
    more = f"&outputs={','.join(zoo.outputs())}" if path == "/v1/cross_entropy" else ""
    asked = {
        device: posted(on_a_gpu, f"{path}?device={device}{more}", tensors_for(path))
        for device in ("cpu", "cuda", "auto")
    }
    assert asked["cuda"].content == asked["auto"].content
    cpu, gpu = (wire.tensors_of(asked[device]) for device in ("cpu", "cuda"))
    assert cpu.keys() == gpu.keys() >= ANSWERS[path]
    for name, array in gpu.items():
        assert array.dtype == cpu[name].dtype
        np.testing.assert_allclose(array, cpu[name], rtol=2e-6, atol=2e-7)
    if more:
        assert asked["cuda"].content != asked["cpu"].content


def test_on_v2_as_well(on_a_gpu: httpx.Client) -> None:
    logits, labels = [[1.0, 3.0, 2.0, 3.0, 0.0], [0.0, 0.0, 1.0, 1.0, 0.0]], [3, 4]
    inputs = [
        {"name": "logits", "shape": [2, 5], "datatype": "FP32", "data": logits},
        {"name": "labels", "shape": [2], "datatype": "INT64", "data": labels},
    ]

    def loss(**parameters: str) -> float:
        body = {"inputs": inputs, "parameters": parameters}
        answer = on_a_gpu.post("/v2/models/cross_entropy/infer", json=body).json()
        return float(answer["outputs"][0]["data"][0])

    of_v1 = on_a_gpu.post("/v1/cross_entropy", json={"logits": logits, "labels": labels}).json()
    assert loss() == loss(device="cuda") == of_v1["loss"]
    assert loss(device="cpu") == pytest.approx(loss(), rel=1e-6)


def test_small_mistakes_are_found_on_the_device(on_a_gpu: httpx.Client) -> None:
    body = {"logits": [[1, 2], [3, 4]], "labels": [1, 2]}
    problem = wire.problem_of(on_a_gpu.post("/v1/cross_entropy", json=body), 422)
    assert problem["position"] == [1]
    assert problem["field"] == "labels"


def test_explain_explains_the_gpu(on_a_gpu: httpx.Client) -> None:
    body = {"logits": [[1, 3, 2, 3, 0]], "labels": [3]}
    routes = on_a_gpu.post("/v1/explain", json=body).json()["routes"]
    assert routes["largest_difference"] < 1e-6
    assert routes["cross_entropy"] == on_a_gpu.post("/v1/cross_entropy", json=body).json()["loss"]


def test_its_state_names_the_gpu(on_a_gpu: httpx.Client) -> None:
    assert on_a_gpu.get("/readyz").json() == {
        "status": "ready",
        "leased_bytes": 0,
        "device": "cuda",
    }


def test_what_its_memory_cannot_hold_is_refused_and_leaves_nothing(on_a_gpu: httpx.Client) -> None:
    tensors = row_of(32768)
    for _ in range(3):
        response = posted(on_a_gpu, "/v1/cross_entropy", tensors)
        problem = wire.problem_of(response, 503)
        assert problem["type"] == "urn:lossd:problem:device-out-of-memory"
        assert int(response.headers["retry-after"]) >= 1
    assert posted(on_a_gpu, "/v1/cross_entropy", row_of(50)).status_code == 200
    assert on_a_gpu.get("/readyz").json()["leased_bytes"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_whose_gpu_fails_is_replaced() -> None:
    """Each time; and the other one goes on."""
    with simulating("--workers", "2") as server:
        for _ in range(3):
            before = set(workers(server.process))
            with client_of(server) as client:
                problem = wire.problem_of(posted(client, "/v1/cross_entropy", row_of(DEADLY)), 503)
            assert problem["type"] == "urn:lossd:problem:device-failed"
            until(lambda: len(before & set(workers(server.process))) == 1)  # noqa: B023
            with client_of(server) as client:  # of the other one, or the new one
                assert posted(client, "/v1/cross_entropy", row_of(5)).status_code == 200
            until(lambda: len(workers(server.process)) == 2)


@WITHOUT_GPU
@pytest.mark.parametrize("workers", ["1", "2"])
def test_asked_for_a_gpu_that_is_not_there_it_says_so_and_ends(workers: str) -> None:
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--workers", workers]
    ended = subprocess.run(
        [*command, "--device", "cuda"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert ended.returncode == 3
    assert "Traceback" not in ended.stderr
    lines = [line for line in ended.stderr.splitlines() if "LOSSD_DEVICE is cuda" in line]
    assert len(lines) == int(workers)
    assert 'device="cuda" needs' in lines[0]
    assert "auto or cpu would do" in lines[0]


@WITHOUT_GPU
def test_auto_falls_back_and_says_so() -> None:
    with serving("service.cli", "--device", "auto") as server, client_of(server) as client:
        state = client.get("/readyz").json()
        assert state["device"] == "cpu"
        assert 'device="cuda"' in state["why_no_gpu"]
        answer = posted(client, "/v1/softmax", tensors_for("/v1/softmax"))
        assert answer.status_code == 200
        refused = posted(client, "/v1/softmax?device=cuda", tensors_for("/v1/softmax"))
        assert wire.problem_of(refused, 422)["type"] == "urn:lossd:problem:device-unavailable"


def test_a_server_for_the_cpu_imports_nothing_of_cuda() -> None:
    """Before and after requests, even those that ask for it; but for what the packages' own .pth
    files import in every process of this environment.
    """
    code = "import sys, numba; print([name for name in sys.modules if 'cuda' in name.lower()])"
    alone = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    with serving("tests.service.compute.modules") as server, client_of(server) as client:

        def imported() -> str:
            names: list[Any] = client.get("/modules").json()
            return f"{[name for name in names if 'cuda' in name.lower()]}"

        assert "kernels.cpu.launch.loss" in client.get("/modules").json()
        assert sorted(imported()) == sorted(alone.strip())
        for path in ANSWERS:
            for query, status in (("", 200), ("?device=auto", 200), ("?device=cuda", 422)):
                answer = posted(client, path + query, tensors_for(path))
                assert answer.status_code == status
        assert sorted(imported()) == sorted(alone.strip())
