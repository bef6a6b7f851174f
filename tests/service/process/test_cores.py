"""Cores that there are, as the affinity and the control groups of either version say it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from service.process import cores
from tests.service.groups import tree

V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu"


def v1(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}"}


@pytest.fixture(autouse=True)
def _sixty_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {f"{V2}/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {f"{V2}/cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {f"{V2}/cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {f"{V2}/cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {f"{V2}/cpu.max": "10000 5000\n"}, 2),
        ("0::/\n", {f"{V2}/cpu.max": "9900000 100000\n"}, 64),
        (  # a pod of 3 around a container of 4
            "0::/pod/container\n",
            {f"{V2}/pod/cpu.max": "300000 100000", f"{V2}/pod/container/cpu.max": "400000 100000"},
            3,
        ),
        ("0::/of/the/host\n", {f"{V2}/cpu.max": "400000 100000\n"}, 4),
        ("2:cpu,cpuacct:/docker/x\n0::/\n", v1(V1, 800_000), 8),
        ("2:cpu:/a/b\n", {**v1(f"{V1}/a", 200_000), **v1(f"{V1}/a/b", -1)}, 2),
        ("2:cpu:/\n", v1(V1, -1), 64),
        ("2:cpuset:/\n3:cpuacct:/\n", v1(V1, 100_000), 64),
        ("0::/\n", {f"{V2}/cpu.max": ""}, 64),
        ("0::/\n", {f"{V2}/cpu.max": "100000 0"}, 64),
        ("", {}, 64),
    ],
)
def test_the_least_of_affinity_and_quotas_holds(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert cores.available(tree(tmp_path, groups, **files)) == expected


def test_an_affinity_below_the_quota_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    root = tree(tmp_path, "0::/\n", **{f"{V2}/cpu.max": "800000 100000"})
    assert cores.available(root) == 2


def test_a_system_without_affinities_counts_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert cores.available(tmp_path) == 12


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine_has_some() -> None:
    assert 1 <= cores.available() <= 64
