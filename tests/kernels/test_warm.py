"""Kernels compiled before the first request: where from, and the self-test."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import kernels
from kernels import compiled, dtypes, specialisations, warm
from kernels.compiling import Job
from kernels.problem import check
from kernels.specialisations import Specialisation


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Jobs that are loaded, or else compiled, in order; only float16 is in the cache."""
    done: list[str] = []

    def load(job: Job) -> bool:
        done.append(f"load {job.name}")
        return "float16" in job.name.split()

    def compile_all(jobs: Sequence[Job], children: int, told: Any) -> None:
        done.extend(f"compile {job.name}" for job in jobs)

    monkeypatch.setattr(warm, "folder", lambda: tmp_path)
    monkeypatch.setattr(warm, "compile_all", compile_all)
    monkeypatch.setattr(Job, "load", load)
    return done


def test_only_what_is_not_in_the_cache_is_compiled(events: list[str]) -> None:
    warm.compile_common(more=[Job("json", "", "")])
    assert [event for event in events if event.startswith("compile ")] == [
        "compile cross_entropy of float32",
        "compile cross_entropy of bfloat16",
        "compile cross_entropy of float64",
        "compile nll_loss of float32",
        "compile nll_loss of float64",
        "compile json",
    ]


@pytest.mark.parametrize(
    ("offered", "names"),
    [
        (dtypes.FLOATS, ["float32", "float16", "bfloat16", "float64", "float32", "float64"]),
        ((dtypes.BFLOAT16,), ["bfloat16", "float32"]),
        ((dtypes.FLOAT64,), ["float64", "float64"]),
        ((dtypes.FLOAT32, dtypes.FLOAT16), ["float32", "float16", "float32"]),
    ],
)
def test_only_what_is_offered_is_common(
    offered: tuple[dtypes.DType, ...], names: list[str]
) -> None:
    assert [job.arguments[1] for job in warm.common(offered)] == names


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=lambda dtype: dtype.name)
def test_the_worked_example_in_every_dtype(
    dtype: dtypes.DType, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm.check(dtype=dtype)
    monkeypatch.setattr(warm, "_LOSS", 1.6)
    with pytest.raises(warm.SelfTestFailed):
        warm.check(dtype=dtype)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Specialisation(False, "float32", "float32", False), {"cross_entropy"}),
        (Specialisation(False, "float32", "bfloat16", True), {"cross_entropy"}),
        (Specialisation(True, "float64", "float64", False), {"nll_loss"}),
    ],
)
def test_a_specialisation_is_compiled_by_problems_of_its_own(
    wanted: Specialisation, names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: set[str] = set()
    found: set[Specialisation] = set()

    def noting(name: str) -> Any:
        def call(logits: Any, labels: Any, outputs: Any = None, **options: Any) -> None:
            called.add(name)
            # Zeros are no probabilities: the kernel would refuse them.
            assert labels.dtype.kind in "iu" or not options["check_probabilities"]
            found.add(
                specialisations.of(check(logits, labels, normalised=name == "nll_loss", **options))
            )

        return call

    monkeypatch.setattr(specialisations, "_COMPILED", set())
    for name in ("cross_entropy", "nll_loss"):
        monkeypatch.setattr(kernels, name, noting(name))
    assert specialisations.not_compiled(wanted) == (wanted,)
    warm.job(wanted).run()
    assert called == names
    assert found == {wanted}
    assert specialisations.not_compiled(wanted) == ()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with compiled.one_process(tmp_path, "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with compiled.one_process(tmp_path, "lock"):
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_no_folder_has_no_lock() -> None:
    with compiled.one_process(None, "lock"), compiled.one_process(None, "lock"):
        pass
