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

_V2 = ["crc32", "cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"]
V2 = dict.fromkeys(_V2, True)
_MORE = ["avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"]
V3 = {**V2, **dict.fromkeys(_MORE, True)}
V4 = {**V3, **dict.fromkeys(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"], True)}
# What LLVM reports of some CPUs, without what no level asks for; AMD's alone have sse4a.
HASWELL = {**V3, "invpcid": True, "fsgsbase": True, "avx512f": False, "sse4a": False}
ICE_LAKE = {**V4, "avx512vbmi": True, "gfni": True, "wbnoinvd": True, "sse4a": False}
ZEN_3 = {**V3, "vaes": True, "clzero": True, "avx512f": False, "sse4a": True}
# In a virtual machine that hides what kernels have no use for.
ZEN_4 = {**V4, "avx512bf16": False, "wbnoinvd": False, "mwaitx": False, "sse4a": True}
NEON = {"fp-armv8": True, "neon": True}
# What is no instruction, but a choice among them.
TUNINGS = {"prefer-256-bit"}
OF_INTEL_V4 = ["x86-64-v4", "x86-64-v3"]


@pytest.mark.parametrize(
    ("machine", "features", "names"),
    [
        ("x86_64", V2, []),
        ("x86_64", {**V2, "sse4a": True}, []),
        ("x86_64", HASWELL, ["x86-64-v3"]),
        ("x86_64", {**HASWELL, "avx512f": True}, ["x86-64-v3"]),
        ("x86_64", ICE_LAKE, OF_INTEL_V4),
        ("AMD64", ICE_LAKE, OF_INTEL_V4),
        ("x86_64", ZEN_3, ["znver3", "x86-64-v3"]),
        ("x86_64", ZEN_4, ["znver4", "x86-64-v4", "znver3", "x86-64-v3"]),
        ("AMD64", ZEN_4, ["znver4", "x86-64-v4", "znver3", "x86-64-v3"]),
        ("aarch64", NEON, ["arm64"]),
        ("arm64", NEON, ["arm64"]),
        ("aarch64", ZEN_4, []),
        ("riscv64", {**ZEN_4, **NEON}, []),
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
    known = set(binding.get_host_cpu_features())
    for name in levels.of_machine():
        level = LEVELS[name]
        assert {*level.features, *level.without} - TUNINGS <= known


def code_has(cpu: str, flags: str) -> set[str]:
    """Features that LLVM may use in code for ``cpu`` with ``flags``, of those that it knows.

    It inlines a function only where the caller has all features of the function.
    """
    known = sorted(binding.get_host_cpu_features())
    text = "".join(
        f"""
        define internal i32 @with{number}(i32 %x) #{number} {{
            %y = add i32 %x, 1
            ret i32 %y
        }}
        define i32 @calls{number}(i32 %x) #{len(known)} {{
            %y = call i32 @with{number}(i32 %x)
            ret i32 %y
        }}
        attributes #{number} = {{ "target-cpu"="x86-64" "target-features"="+{feature}" }}
        """
        for number, feature in enumerate(known)
    )
    text += f'attributes #{len(known)} = {{ "target-cpu"="{cpu}" "target-features"="{flags}" }}'
    module = binding.parse_assembly(text)
    machine = binding.Target.from_default_triple().create_target_machine(cpu, flags)
    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options())
    builder.getModulePassManager().run(module, builder)
    return {
        feature
        for number, feature in enumerate(known)
        if "call" not in str(module.get_function(f"calls{number}")).partition("{")[2]
    }


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86-64")
@pytest.mark.parametrize("name", [name for name, level in LEVELS.items() if name != "arm64"])
def test_kernels_of_a_level_use_no_feature_that_a_cpu_may_lack(name: str) -> None:
    level = LEVELS[name]
    asked = code_has("x86-64", ",".join(f"+{feature}" for feature in level.features))
    assert {"avx2", "fma"} <= asked
    assert code_has(level.cpu, level.environment["NUMBA_CPU_FEATURES"]) == asked
    assert code_has(level.cpu, "") - asked == {*level.without} - TUNINGS, "no more than there is"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An installation on a machine with AVX-512."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: ICE_LAKE)
    return tmp_path


def test_the_best_level_is_chosen_where_the_installation_has_it(installed: Path) -> None:
    assert levels.environment({}) == {}
    LEVELS["x86-64-v3"].folder.mkdir(parents=True)
    LEVELS["znver4"].folder.mkdir(parents=True)
    assert levels.environment({}) == {}, "slower than compiled ones, and not this CPU's"
    LEVELS["x86-64-v4"].folder.mkdir(parents=True)
    chosen = levels.environment({})
    assert chosen["NUMBA_CPU_NAME"] == "x86-64-v4"
    assert "+avx512dq" in chosen["NUMBA_CPU_FEATURES"].split(",")
    for name in chosen:
        assert levels.environment({name: "given"}) == {}


@pytest.mark.parametrize(
    ("cpu", "best", "otherwise"),
    [(ZEN_4, "znver4", "x86-64-v4"), (ZEN_3, "znver3", "x86-64-v3")],
)
def test_zen_has_the_same_instructions_in_another_order_where_its_own_are_missing(
    installed: Path,
    monkeypatch: pytest.MonkeyPatch,
    cpu: dict[str, bool],
    best: str,
    otherwise: str,
) -> None:
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: cpu)
    for name in LEVELS.keys() - {best, otherwise}:
        LEVELS[name].folder.mkdir(parents=True)
    assert levels.environment({}) == {}, "slower than compiled ones, or not this CPU's"
    for name in (otherwise, best):
        LEVELS[name].folder.mkdir(parents=True)
        assert levels.environment({}) == LEVELS[name].environment


def test_the_kernels_are_read_where_they_are_put(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for level in LEVELS.values():
        monkeypatch.setattr(config, "CPU_NAME", level.cpu)
        (level.folder / "lossd").mkdir(parents=True)
        cache.shipped.cache_clear()
        assert cache.shipped() == level.folder / "lossd"
    cache.shipped.cache_clear()
