"""Compiling in child processes, which hand over what they made."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels import cache, compiling, reduce
from kernels.compiled import kernel
from kernels.compiling import Child, ChildFailed, Job

SUMS = Job("sums", "kernels.reduce", "sum_all_blocks", ([[1.0, 2.0], [3.0, 4.0]],))


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Child]:
    """A child with an empty cache, of a parent that has nowhere to keep anything."""
    monkeypatch.setattr(cache, "folder", lambda: None)
    monkeypatch.setattr(cache, "HANDED_OVER", {})
    monkeypatch.setattr(compiling, "HANDED_OVER", cache.HANDED_OVER)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    with Child(patient=True) as started:
        yield started


def test_what_a_child_compiles_is_loaded_without_a_disk(
    child: Child, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sums: Any = reduce._sum_blocks
    monkeypatch.setattr(reduce, "_sum_blocks", kernel(sums.py_func))
    assert not SUMS.load()
    child.compile_job(SUMS)
    assert [name.partition("-")[0] for name in cache.HANDED_OVER] == ["kernels.reduce._sum_blocks"]
    with cache.loading_only():
        sums_of = reduce.sum_all_blocks(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert (sums_of / reduce.SCALE).tolist() == [[3.0, 7.0]]
    assert not cache.HANDED_OVER
    assert not [*tmp_path.rglob("*.kernel")]  # that is its parent's to write


def test_a_job_that_fails_says_why(child: Child) -> None:
    with pytest.raises(ChildFailed, match="nothing could not be compiled: AttributeError"):
        child.compile_job(Job("nothing", "kernels.reduce", "no such function"))
    child.compile_job(Job("something", "time", "sleep", (0,)))


def test_a_child_that_is_ended_gives_up_its_job(child: Child) -> None:
    threading.Timer(0.1, child.end).start()
    with pytest.raises(ChildFailed, match="ended"):
        child.compile_job(Job("a minute", "time", "sleep", (60,)))


def test_a_child_ends_with_its_parent(child: Child) -> None:
    process = child._process
    assert process.stdin is not None
    process.stdin.write(b'["a minute", "time", "sleep", [60]]\n')
    process.stdin.close()
    assert process.wait(30) == 0


def test_no_child_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(ChildFailed, match="/no/such/python"):
        Child()


class Fake:
    """Stands for a child."""

    done: list[str]
    failing = False

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def compile_job(self, job: Job) -> None:
        if self.failing:
            raise ChildFailed("it ended")
        self.done.append(job.name)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what children did."""
    names: list[str] = []
    monkeypatch.setattr(Fake, "done", names, raising=False)
    monkeypatch.setattr(compiling, "Child", Fake)
    return names


def jobs(ran: list[int]) -> list[Job]:
    """Ten that note in ``ran`` that they ran here."""

    class Noted(Job):
        def run(self) -> None:
            ran.append(int(self.name))

    return [Noted(str(i), "", "") for i in range(10)]


def test_children_share_the_jobs_and_all_is_loaded_here(
    done: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ran: list[int] = []
    compiling.compile_all(jobs(ran), 2)
    assert sorted(done) == [str(i) for i in range(10)]
    assert ran == [*range(10)]
    assert "compiling 10 kernels in 2 processes" in caplog.text


def test_without_children_it_is_done_here(
    done: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fake, "failing", True)
    ran: list[int] = []
    compiling.compile_all(jobs(ran), 1)
    assert ran == [*range(10)]
    assert done == []
    assert [record.getMessage() for record in caplog.records] == [
        "it ended: compiling in this process"
    ]


def test_nothing_to_do_needs_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(compiling, "Child")
    compiling.compile_all([], 2)


def test_progress_is_told_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = [0.0]
    progress = compiling.Progress(3, None, lambda: now[0])
    for seconds in (4.0, 11.0, 12.0):
        now[0] = seconds
        progress.done()
        progress.tell()
    now[0] = 22.0
    progress.tell()
    assert [record.getMessage() for record in caplog.records] == [
        "compiled 2 of 3 kernels after 11 s",
        "compiled 3 of 3 kernels after 22 s",
    ]


def test_anything_that_is_printed_gets_into_nobodys_way(child: Child) -> None:
    child.compile_job(Job("print", "builtins", "print", ("not a line of JSON",)))
    assert not cache.HANDED_OVER
