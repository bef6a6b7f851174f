"""Levels of CPUs: the one that a CPU has, and the variables with which its kernels are used."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import pytest
from llvmlite import binding
from numba import config

from kernels import cache
from service.process import levels
from service.process.levels import LEVELS

V2 = dict.fromkeys(["cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"], True)
_MORE = ["avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"]
V3 = {**V2, **dict.fromkeys(_MORE, True)}
V4 = {**V3, **dict.fromkeys(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"], True)}
NEON = {"fp-armv8": True, "neon": True}


@pytest.mark.parametrize(
    ("machine", "features", "names"),
    [
        ("x86_64", V2, []),
        ("x86_64", V3, ["x86-64-v3"]),
        ("x86_64", {**V3, "avx512f": True}, ["x86-64-v3"]),
        ("x86_64", V4, ["x86-64-v4", "x86-64-v3"]),
        ("AMD64", V4, ["x86-64-v4", "x86-64-v3"]),
        ("aarch64", NEON, ["arm64"]),
        ("arm64", NEON, ["arm64"]),
        ("aarch64", V4, []),
        ("riscv64", {**V4, **NEON}, []),
    ],
)
def test_a_cpu_has_the_levels_of_its_features(
    monkeypatch: pytest.MonkeyPatch, machine: str, features: dict[str, bool], names: list[str]
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert levels.present(features) == names


def test_a_cpu_that_llvm_does_not_know_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Any:
        raise RuntimeError("target has no CPU features")

    monkeypatch.setattr(binding, "get_host_cpu_features", unknown)
    assert levels.present() == []


def test_the_features_of_a_level_are_llvms() -> None:
    """LLVM passes over a name that it does not know, without an error."""
    for name in levels.of_machine():
        known = binding.get_host_cpu_features()
        assert set(LEVELS[name].features) <= set(known)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An installation on a machine with AVX-512."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: V4)
    return tmp_path


def test_the_best_level_is_chosen_where_the_installation_has_it(installed: Path) -> None:
    assert levels.environment({}) == {}
    LEVELS["x86-64-v3"].folder.mkdir(parents=True)
    assert levels.environment({}) == {}, "slower than compiled ones"
    LEVELS["x86-64-v4"].folder.mkdir(parents=True)
    chosen = levels.environment({})
    assert chosen["NUMBA_CPU_NAME"] == "x86-64-v4"
    assert "+avx512dq" in chosen["NUMBA_CPU_FEATURES"].split(",")
    for name in chosen:
        assert levels.environment({name: "given"}) == {}


def test_the_kernels_are_read_where_they_are_put(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for level in LEVELS.values():
        monkeypatch.setattr(config, "CPU_NAME", level.cpu)
        (level.folder / "lossd").mkdir(parents=True)
        cache.shipped.cache_clear()
        assert cache.shipped() == level.folder / "lossd"
    cache.shipped.cache_clear()
