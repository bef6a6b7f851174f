"""The memory that there is, as control groups of either version say it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.memory import limit as memory_limit
from tests.service.groups import tree

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MIB = 2**20


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"sys/fs/cgroup/memory.max": "67108864\n"}, 64 * MIB),
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/memory.max": "max\n"}, PHYSICAL),
        (
            "0::/a/b\n",
            {
                "sys/fs/cgroup/a/memory.max": "1048576\n",
                "sys/fs/cgroup/a/b/memory.max": "2097152\n",
            },
            MIB,
        ),
        ("0::/of/the/host\n", {"sys/fs/cgroup/memory.max": "1048576\n"}, MIB),
        (
            "4:memory:/docker/x\n3:cpu,cpuacct:/\n0::/\n",
            {"sys/fs/cgroup/memory/memory.limit_in_bytes": "1048576\n"},
            MIB,
        ),
        (
            "4:memory:/\n",
            {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}"},
            PHYSICAL,
        ),
        ("", {}, PHYSICAL),
    ],
)
def test_the_least_of_all_limits_holds(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int
) -> None:
    assert memory_limit.memory_limit(tree(tmp_path, groups, **files)) == limit


def test_where_there_is_no_such_thing_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert memory_limit.memory_limit(tmp_path) == PHYSICAL


@pytest.mark.parametrize(
    ("limit", "workers", "budget"),
    [(4096, 1, 2816), (4096, 2, 1280), (512, 1, 128), (256, 1, 64), (8192, 64, 64)],
)
def test_the_default_leaves_room_for_the_rest(
    monkeypatch: pytest.MonkeyPatch, limit: int, workers: int, budget: int
) -> None:
    monkeypatch.setattr(memory_limit, "memory_limit", lambda: limit * MIB)
    assert memory_limit.default_budget(workers) == budget * MIB
