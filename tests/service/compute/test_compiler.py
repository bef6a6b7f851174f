"""Kernels that are compiled while requests come: those that are ready go on, the others wait."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from kernels import specialisations, warm
from kernels.compiling import ChildFailed
from kernels.specialisations import Specialisation
from service.app import create_app
from service.compute import compiler
from service.compute.compiler import Compiler
from service.settings import Settings
from tests.service import wire
from tests.service.conftest import Client, ready, running, wait_until_ready

FIRST, SECOND = (Specialisation(False, name, name, True) for name in ("float16", "bfloat16"))


class Fakes:
    """Stands for jobs and for children: what they do, and when they may go on."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.cached: set[str] = set()
        self.failing = False
        self.go, self.started = threading.Event(), threading.Event()

    def job(self, wanted: Specialisation) -> Any:
        return _Job(self, wanted)

    def child(self, *, patient: bool) -> Any:
        assert patient
        return _Child(self)


class _Job:
    def __init__(self, fakes: Fakes, wanted: Specialisation) -> None:
        self._fakes, self._wanted, self.name = fakes, wanted, str(wanted)

    def load(self) -> bool:
        return self.name in self._fakes.cached

    def run(self) -> None:
        self._fakes.events.append(f"loaded {self.name}")
        specialisations.mark_compiled(self._wanted)


class _Child:
    def __init__(self, fakes: Fakes) -> None:
        self._fakes, self._ended = fakes, threading.Event()

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def compile_job(self, job: Any) -> None:
        self._fakes.events.append(f"compiling {job.name}")
        self._fakes.started.set()
        while not self._fakes.go.wait(0.01):
            if self._ended.is_set():
                raise ChildFailed("it was ended")
        if self._fakes.failing:
            raise ChildFailed("it failed")

    def end(self) -> None:
        self._ended.set()


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fakes]:
    """With nothing compiled but what plain float32 needs."""
    made = Fakes()
    monkeypatch.setattr(compiler, "Child", made.child)
    monkeypatch.setattr(compiler, "folder", lambda: None)
    plain = Specialisation(False, "float32", "float32", False)
    warm.job(plain).run()
    monkeypatch.setattr(warm, "job", made.job)
    monkeypatch.setattr(specialisations, "_COMPILED", {plain})
    yield made
    made.go.set()


def body(dtype: str) -> bytes:
    return wire.npz_body({"logits": np.zeros((100, 1000), dtype), "labels": np.zeros(100, int)})


@contextmanager
def started(**settings: Any) -> Iterator[tuple[Client, Any]]:
    app = create_app(Settings(**settings), warm=lambda: None)
    with running(app) as client:
        wait_until_ready(client)
        yield client, app


# Whose kernel is told to be missing; in truth every start compiles it.
WANTED = "cross_entropy of float16"


async def test_what_is_ready_goes_on_and_what_is_not_waits(fakes: Fakes) -> None:
    async with ready(create_app(Settings(), warm=lambda: None)) as client:

        def send(dtype: str) -> Any:
            headers = {"content-type": wire.NPZ}
            return client.post("/v1/cross_entropy", content=body(dtype), headers=headers)

        waiting = [asyncio.create_task(send("f2")) for _ in range(3)]
        while not fakes.started.is_set():
            await asyncio.sleep(0.001)
        answered = await send("f4")
        assert not any(task.done() for task in waiting)
        fakes.go.set()
        waited = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in (answered, *waited)] == [200] * 4
    assert fakes.events == [f"compiling {WANTED}", f"loaded {WANTED}"]


def test_who_waits_too_long_is_told_when_to_come_back(fakes: Fakes) -> None:
    with started(compile_seconds=0.05) as (client, app):
        for _ in range(2):
            refused = client.send("/v1/cross_entropy", body("f2"), wire.NPZ)
            problem = wire.problem_of(refused, 503)
            assert problem["type"] == "urn:lossd:problem:compiling"
            assert WANTED in problem["detail"]
            assert int(refused.headers["retry-after"]) >= 1
        assert app.state.service.budget.leased == 0
        fakes.go.set()
        assert client.send("/v1/cross_entropy", body("f4"), wire.NPZ).status_code == 200
    assert sum("compiling" in event for event in fakes.events) == 1


def test_small_requests_wait_off_the_loop_each_time_they_come(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of a kind has a plan, which must not compile either."""
    monkeypatch.setattr("kernels.cpu.launch.threads._COMPILED", {})
    small = wire.npz_body({"logits": np.zeros((4, 17), "f2"), "labels": np.zeros(4, int)})
    with started(compile_seconds=0.02) as (client, _):
        for _ in range(4):
            refused = client.send("/v1/cross_entropy", small, wire.NPZ)
            assert wire.problem_of(refused, 503)["type"] == "urn:lossd:problem:compiling"
            assert client.get("/healthz").status_code == 200


def test_explain_waits_for_all_that_it_calls(fakes: Fakes) -> None:
    fakes.go.set()
    small = wire.npz_body({"logits": np.zeros((4, 5), "f4"), "labels": np.zeros(4, int)})
    with started() as (client, _):
        assert client.send("/v1/explain", small, wire.NPZ).status_code == 200
    assert fakes.events == ["compiling nll_loss of float32", "loaded nll_loss of float32"]


async def _finished(made: Compiler, *wanted: Specialisation) -> list[Any]:
    return await asyncio.gather(
        *(made.compiled((each,)) for each in wanted), return_exceptions=True
    )


async def run(*wanted: Specialisation) -> list[Any]:
    made = Compiler(length=4, seconds=20.0)
    try:
        return await _finished(made, *wanted)
    finally:
        made.close()


async def test_one_at_a_time_and_each_once(fakes: Fakes) -> None:
    fakes.go.set()
    assert await run(FIRST, SECOND, FIRST) == [None, None, None]
    first, second = str(FIRST), str(SECOND)
    assert fakes.events == [
        f"compiling {first}",
        f"loaded {first}",
        f"compiling {second}",
        f"loaded {second}",
    ]


async def test_what_is_in_the_cache_needs_no_child(fakes: Fakes) -> None:
    fakes.cached.add(str(FIRST))
    assert await run(FIRST) == [None]
    assert not fakes.events


async def test_where_a_child_fails_it_is_done_in_this_process(
    fakes: Fakes, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.failing = True
    fakes.go.set()
    assert await run(FIRST) == [None]
    assert fakes.events[-1] == f"loaded {FIRST}"
    assert "it failed: compiling in this process" in caplog.text


async def test_what_cannot_be_compiled_is_told_to_each_and_tried_again(
    fakes: Fakes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(job: _Job) -> None:
        raise ValueError("LLVM")

    monkeypatch.setattr(_Job, "run", fail)
    fakes.go.set()
    for _ in range(2):
        assert [str(error) for error in await run(FIRST, FIRST)] == [
            "a kernel could not be compiled: LLVM"
        ] * 2
    assert sum("could not be compiled" in record.getMessage() for record in caplog.records) == 2


async def test_progress_is_logged(
    fakes: Fakes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(compiler, "PROGRESS", 0.02)
    threading.Timer(0.2, fakes.go.set).start()
    await run(FIRST)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == f"compiling {FIRST}, which a request asks for; others go on"
    assert said[1].startswith(f"{FIRST} is being compiled, or waits for its turn: ")
    assert said[-1].startswith(f"{FIRST} is ready after ")


async def test_closing_ends_the_child_and_who_waits_is_told(fakes: Fakes) -> None:
    made = Compiler(4, 20.0)
    waiting = asyncio.ensure_future(_finished(made, FIRST, SECOND))
    while not fakes.started.is_set():
        await asyncio.sleep(0.001)
    made.close()
    _, second = await waiting
    assert "shutting down" in str(second)
    assert fakes.events == [f"compiling {FIRST}"]


@pytest.mark.parametrize(("dtype", "status"), [("f4", 200), ("f8", 422)])
def test_only_dtypes_that_are_offered_are_taken(dtype: str, status: int, fakes: Fakes) -> None:
    with started(dtypes="float32, bfloat16") as (client, _):
        answer = client.send("/v1/cross_entropy", body(dtype), wire.NPZ)
        assert answer.status_code == status
        if status == 422:
            problem = wire.problem_of(answer, 422)
            assert problem["field"] == "logits"
            assert "float64" in problem["detail"]
            assert "float32, bfloat16" in problem["detail"]
            soft = {"logits": np.zeros((2, 3), "f4"), "labels": np.full((2, 3), 0.5, dtype)}
            refused = client.send("/v1/cross_entropy", wire.npz_body(soft), wire.NPZ)
            assert wire.problem_of(refused, 422)["field"] == "labels"
            weighed = {
                "logits": np.zeros((2, 3), "f4"),
                "labels": np.zeros(2, int),
                "weight": np.ones(3),
            }
            taken = client.send("/v1/cross_entropy", wire.npz_body(weighed), wire.NPZ)
            assert taken.status_code == 200
    assert not fakes.events
