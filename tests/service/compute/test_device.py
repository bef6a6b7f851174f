"""Device that computes a request, and the log where it is not the one asked for.

A GPU is pretended by its absence being denied, and by what stands for its launches.
``test_simulated.py`` has one that computes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest

from kernels import DeviceFailed, DeviceOutOfMemory, DeviceUnavailable, devices
from service.app import create_app
from service.compute import device
from service.compute.device import Device
from service.options import CrossEntropyOptions
from service.process import DEVICE_FAILED, shutdown
from service.settings import Settings, SettingsError
from tests.service import wire
from tests.service.cases import ANSWERS, tensors_for
from tests.service.conftest import Client, running, wait_until_ready

WHY = "needs a GPU, says the test"
MODELS = ("cross_entropy", "nll_loss", "log_softmax", "softmax")
DEVICES = ("cpu", "cuda", "auto")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "why_no_gpu", lambda: WHY)


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "why_no_gpu", lambda: None)
    monkeypatch.setattr(devices, "prepare", lambda memory_bytes, processes: None)


@pytest.mark.parametrize("setting", ["cpu", "auto"])
@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_the_cpu_computes(setting: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = device.chosen(Settings(device=setting))
    assert found.name == "cpu"
    assert (WHY in str(found.why_no_gpu)) == (WHY in caplog.text) == (setting == "auto")


@pytest.mark.usefixtures("no_gpu")
def test_asked_for_a_gpu_that_is_not_there_it_does_not_start() -> None:
    with pytest.raises(SettingsError, match=f"LOSSD_DEVICE is cuda: {WHY}; auto or cpu"):
        create_app(Settings(device="cuda"))


@pytest.mark.usefixtures("a_gpu")
def test_the_gpu_is_prepared_with_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(devices, "prepare", lambda *arguments: given.extend(arguments))
    for setting in DEVICES:
        chosen = Settings(device=setting, device_memory_bytes=12345, workers=3)
        device.chosen(chosen).prepare(chosen)
    assert given == [12345, 3] * 2


@pytest.mark.usefixtures("a_gpu")
def test_a_gpu_that_cannot_be_made_ready_is_fallen_back_from_or_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: int) -> None:
        raise RuntimeError("too old a driver")

    monkeypatch.setattr(devices, "prepare", fail)
    asked = device.chosen(Settings(device="cuda"))
    with pytest.raises(RuntimeError, match="too old a driver"):
        asked.prepare(Settings())
    found = device.chosen(Settings(device="auto"))
    found.prepare(Settings())
    assert found.name == "cpu"
    assert "RuntimeError" in str(found.why_no_gpu)
    assert "too old a driver" in caplog.text


@pytest.mark.parametrize(
    ("server", "asked", "computed"),
    [
        ("cpu", "auto", "cpu"),
        ("cpu", "cpu", "cpu"),
        ("cpu", "cuda", None),
        ("cuda", "auto", "cuda"),
        ("cuda", "cpu", "cpu"),
        ("cuda", "cuda", "cuda"),
    ],
)
def test_what_a_request_may_ask_for(server: str, asked: Any, computed: str | None) -> None:
    seen: list[str] = []

    def compute(given: dict[str, Any]) -> Any:
        seen.append(given["device"])
        raise StopAsyncIteration  # far enough

    own = Device(server, None if server == "cuda" else WHY)
    with pytest.raises((StopAsyncIteration, DeviceUnavailable)) as caught:
        own.work(compute, {}, CrossEntropyOptions(device=asked), None)
    assert seen == ([] if computed is None else [computed])
    if computed is None:
        assert WHY in str(caught.value)


@pytest.mark.parametrize("path", ANSWERS)
def test_a_gpu_that_this_server_has_not_is_the_requests_mistake(client: Client, path: str) -> None:
    body = wire.npz_body(tensors_for(path))
    problem = wire.problem_of(client.send(f"{path}?device=cuda", body, wire.NPZ), 422)
    assert problem["type"] == "urn:lossd:problem:device-unavailable"
    assert problem["field"] == "device"
    assert "this server computes on the CPU" in problem["detail"]
    answers = [client.send(path + query, body, wire.NPZ) for query in QUERIES]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


QUERIES = ("", "?device=cpu", "?device=auto")


def infer(client: Client, model: str, **parameters: str) -> Any:
    first = "log_probs" if model == "nll_loss" else "logits"
    inputs = [{"name": first, "shape": [1, 2], "datatype": "FP32", "data": [-1.0, -2.0]}]
    if model in ("cross_entropy", "nll_loss"):
        inputs.append({"name": "labels", "shape": [1], "datatype": "INT64", "data": [1]})
    return client.post(
        f"/v2/models/{model}/infer", json={"inputs": inputs, "parameters": parameters}
    )


@pytest.mark.parametrize("model", MODELS)
def test_on_v2_it_is_a_parameter(client: Client, model: str) -> None:
    refused = wire.problem_of(infer(client, model, device="cuda"), 422)
    assert refused["type"] == "urn:lossd:problem:device-unavailable"
    assert infer(client, model, device="cpu").content == infer(client, model).content


def test_who_asks_whether_it_is_ready_is_told_the_device(client: Client) -> None:
    state = client.get("/readyz").json()
    assert state["device"] == "cpu"
    assert state["why_no_gpu"] == "the server was started for the CPU"


# What a pretended GPU does with a problem.
Pipeline = Callable[..., Generator[int, None, Any]]


def raising(error: Exception) -> Pipeline:
    def in_steps(*arguments: Any) -> Generator[int, None, Any]:
        yield 0
        raise error

    return in_steps


@pytest.fixture
def pretended(a_gpu: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """Call it with what the GPU is to raise from now on."""
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    from kernels.cuda.launch import loss

    return lambda error: monkeypatch.setattr(loss, "in_steps", raising(error))


@pytest.mark.parametrize("path", ["/v1/cross_entropy", "/v1/explain"])
def test_a_full_gpu_is_for_later(
    path: str, pretended: Callable[[Exception], None], caplog: pytest.LogCaptureFixture
) -> None:
    pretended(DeviceOutOfMemory("7 bytes too few"))
    body = wire.npz_body(tensors_for(path))
    with running(create_app(Settings(device="cuda"), warm=lambda: None)) as client:
        wait_until_ready(client)
        assert client.get("/readyz").json() == {
            "status": "ready",
            "leased_bytes": 0,
            "device": "cuda",
        }
        for _ in range(2):
            response = client.send(path, body, wire.NPZ)
            problem = wire.problem_of(response, 503)
            assert problem["type"] == "urn:lossd:problem:device-out-of-memory"
            assert problem["detail"] == "7 bytes too few"
            assert int(response.headers["retry-after"]) >= 1
        assert client.send(f"{path}?device=cpu", body, wire.NPZ).status_code == 200
        assert client.get("/readyz").json()["leased_bytes"] == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_gpu_that_fails_ends_the_process(
    pretended: Callable[[Exception], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not ready as soon as the client knows of it; and gone even if an answer is never read."""
    pretended(DeviceFailed("the GPU stopped with an illegal address"))
    monkeypatch.setattr(shutdown, "LAST_ANSWERS", 0.3)
    statuses: list[int] = []

    async def ended() -> None:
        async with asyncio.timeout(30):
            while not statuses:
                await asyncio.sleep(0.01)

    path, body = "/v1/cross_entropy", wire.npz_body(tensors_for("/v1/cross_entropy"))
    app = create_app(Settings(device="cuda"), warm=lambda: None, fail=statuses.append)
    with running(app) as client:
        wait_until_ready(client)
        held = client.runner.run(app.state.service.budget.lease(1))
        response = client.send(path, body, wire.NPZ)
        problem = wire.problem_of(response, 503)
        assert problem["type"] == "urn:lossd:problem:device-failed"
        assert int(response.headers["retry-after"]) >= 1
        for answer in (client.get("/readyz"), client.send(path, body, wire.NPZ)):
            refusal = wire.problem_of(answer, 503)
            assert refusal["type"] == "urn:lossd:problem:not-ready"
            assert "the GPU failed" in refusal["detail"]
        [state, *_] = client.post("/v2/repository/index").json()
        assert (state["state"], "the GPU failed" in state["reason"]) == ("UNAVAILABLE", True)
        client.runner.run(ended())
        held.release()
    assert statuses == [DEVICE_FAILED]
    assert "the GPU stopped with an illegal address: this process ends" in caplog.text


def test_the_cpus_work_is_not_wrapped() -> None:
    """A CPU server pays nothing for what a GPU might do."""
    work = object()
    options = CrossEntropyOptions()
    assert Device().work(lambda *_: work, {}, options, None) is work  # type: ignore[arg-type]


def test_steps_pass_through_unchanged() -> None:
    def steps() -> Generator[int, None, dict[str, Any]]:
        yield 5
        yield 7
        return {"loss": np.float32(3)}

    watched = Device("cuda", None)._watched(steps())
    assert [next(watched), next(watched)] == [5, 7]
    with pytest.raises(StopIteration) as stopped:
        next(watched)
    assert stopped.value.value == {"loss": 3}
