"""Blocks of memory: their pages there before use, kept for the next, and given back."""

from __future__ import annotations

import asyncio
import mmap

import pytest

from service.memory import pages
from service.memory.pages import Block, Idle

MIB = 2**20


def resident(block: Block) -> int:
    """Bytes of ``block`` that have pages, as the system says."""
    start, pages_there = block.bytes.ctypes.data, 0
    with open("/proc/self/smaps") as maps:
        inside = False
        for line in maps:
            first, _, rest = line.partition("-")
            if rest and first.isalnum() and " " in rest:
                inside = int(first, 16) <= start < int(rest.split(" ")[0], 16)
            elif inside and line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    return pages_there


@pytest.fixture
def proc() -> None:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        pytest.skip("needs Linux")


async def test_pages_are_there_and_go(proc: None) -> None:
    block = Block(8 * MIB)
    assert block.warm == 0
    await block.fault_in(5 * MIB)
    assert block.warm == 5 * MIB
    assert resident(block) >= 5 * MIB
    block.bytes[: 5 * MIB] = 3
    block.cool(2 * MIB)
    assert block.warm == 2 * MIB
    assert block.bytes[2 * MIB - 1] == 3
    await block.fault_in(MIB)
    assert block.warm == 2 * MIB


def test_a_block_holds_at_least_what_was_asked_for() -> None:
    for size in (1, mmap.PAGESIZE, mmap.PAGESIZE + 1):
        block = Block(size)
        assert block.capacity >= size
        assert block.capacity % mmap.PAGESIZE == 0
        assert block.bytes.size == block.capacity


def test_no_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        Block(2**60)


async def test_the_best_fit_is_taken() -> None:
    idle = Idle(64 * MIB)
    blocks = {size: Block(size * MIB) for size in (2, 4, 8)}
    for block in blocks.values():
        block.warm = block.capacity
        idle.keep(block)
    assert idle.size == 14 * MIB
    assert idle.take(3 * MIB) is blocks[4]
    assert blocks[4].warm == 3 * MIB
    assert idle.take(8 * MIB) is blocks[8]
    assert idle.take(3 * MIB) not in blocks.values()
    assert idle.size == 2 * MIB


async def test_the_oldest_goes_first_and_only_as_much_as_must() -> None:
    idle = Idle(64 * MIB)
    old, new = Block(4 * MIB), Block(4 * MIB)
    for block in (old, new):
        block.warm = block.capacity
        idle.keep(block)
    idle.trim(6 * MIB)
    assert (idle.size, old.warm, new.warm) == (6 * MIB, 2 * MIB, 4 * MIB)
    idle.trim(3 * MIB)
    assert (idle.size, new.warm) == (3 * MIB, 3 * MIB)
    assert idle.take(MIB) is new


async def test_what_nobody_uses_for_a_while_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_KEPT_SECONDS", 0.01)

    idle = Idle(64 * MIB)
    block = Block(2 * MIB)
    block.warm = block.capacity
    idle.keep(block)
    while idle.size:
        await asyncio.sleep(0.01)
    assert idle.take(MIB) is not block


async def test_no_page_is_there_that_nobody_counts(proc: None) -> None:
    """A body of 8 MiB is shifted by up to 64 bytes: not by another huge page."""

    def held() -> int:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line[:7] == "RssAnon")

    before = held()
    blocks = [Block(8 * MIB + 64) for _ in range(16)]
    for block in blocks:
        await block.fault_in(block.capacity)
    assert held() - before <= sum(block.warm for block in blocks) + 8 * MIB
