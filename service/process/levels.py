"""Levels: kinds of CPU that kernels are compiled for ahead of time, and the one that fits here.

A kernel compiled for a level runs on every CPU that has the level's features, so an image can hold
it. The levels of x86-64 are two of its psABI, and two for AMD's CPUs, of the same features: LLVM
chooses and orders instructions for Zen there. Those of the psABI's levels, chosen as for Intel's
CPUs, took a Zen 5 up to 12 % longer. This module imports neither Numba nor the kernels: Numba reads
the variables as it is imported.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from llvmlite import binding

CPU_NAME, CPU_FEATURES = "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"


class Level(NamedTuple):
    """Kind of CPU: LLVM's name, and the features that a CPU must have and kernels may use.

    Kernels are compiled ``without`` others that LLVM takes the name to have. Where the installation
    lacks this level, it is served by the one called ``otherwise``.
    """

    machine: tuple[str, ...]
    cpu: str
    features: tuple[str, ...]
    without: tuple[str, ...] = ()
    otherwise: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which Numba compiles for this level."""
        flags = (*(f"+{name}" for name in self.features), *(f"-{name}" for name in self.without))
        return {CPU_NAME: self.cpu, CPU_FEATURES: ",".join(flags)}

    @property
    def folder(self) -> Path:
        """Folder of this level's kernels in the installation; ``kernels.cache`` reads it."""
        return Path(sys.prefix, "share", "lossd", self.cpu)


_X86 = ("x86_64", "AMD64")
_V2 = ("crc32", "cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
# Of AMD's CPUs alone.
_AMD = "sse4a"
# What LLVM takes Zen 3 to have besides. Kernels gain nothing by it; virtual machines hide some.
_ZEN3 = (
    *("adx", "aes", "clflushopt", "clwb", "clzero", "fsgsbase", "invpcid", "mwaitx", "pclmul"),
    *("pku", "prfchw", "rdpid", "rdpru", "rdrnd", "rdseed", "sha", "vaes", "vpclmulqdq"),
    *("wbnoinvd", "xsavec", "xsaveopt", "xsaves"),
)
_ZEN4 = (
    *(*_ZEN3, "avx512bf16", "avx512bitalg", "avx512ifma", "avx512vbmi", "avx512vbmi2"),
    *("avx512vnni", "avx512vpopcntdq", "gfni", "shstk"),
)

# By name, a CPU's best level first.
LEVELS = {
    "znver4": Level(_X86, "znver4", (*_V4, _AMD), _ZEN4, otherwise="x86-64-v4"),
    "x86-64-v4": Level(_X86, "x86-64-v4", _V4, ("prefer-256-bit",)),
    "znver3": Level(_X86, "znver3", (*_V3, _AMD), _ZEN3, otherwise="x86-64-v3"),
    "x86-64-v3": Level(_X86, "x86-64-v3", _V3),
    "arm64": Level(("aarch64", "arm64"), "generic", ("fp-armv8", "neon")),
}


def of_machine() -> list[str]:
    """Names of the levels that kernels can be compiled for here, whichever CPU this machine has."""
    return [name for name, level in LEVELS.items() if platform.machine() in level.machine]


def present(features: Mapping[str, bool] | None = None) -> list[str]:
    """Names of the levels that a CPU with ``features`` has, the best first; by default this one."""
    if features is None:
        try:
            features = binding.get_host_cpu_features()
        except RuntimeError:  # LLVM does not know this kind of CPU
            features = {}
    return [
        name
        for name in of_machine()
        if all(features.get(each, False) for each in LEVELS[name].features)
    ]


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Variables that have the installation's own kernels used, where there are any for this CPU.

    Of the best level that the CPU has, or the one ``otherwise``, up to 12 % slower: better than
    compiling at each start. Those of a lower level take twice as long. Variables ``given`` win.
    """
    name = None if given.keys() & {CPU_NAME, CPU_FEATURES} else next(iter(present()), None)
    while name is not None:
        level = LEVELS[name]
        if level.folder.is_dir():
            return level.environment
        name = level.otherwise
    return {}
