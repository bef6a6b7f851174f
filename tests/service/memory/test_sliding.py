"""Memory that slides: what was written stays readable, in no more pages than were given."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator

import numpy as np
import pytest

from service.memory import sliding
from service.memory.pages import HUGE, Block, Bytes
from service.memory.sliding import Sliding, available, whole_pieces

MIB = 2**20

pytestmark = pytest.mark.skipif(not available(), reason="this system moves no pages")


def resident(memory: Bytes) -> int:
    """Bytes of ``memory``, which begins at a page, that have pages, as the system says."""
    pages = np.zeros(-(-memory.size // mmap.PAGESIZE), np.uint8)
    libc = ctypes.CDLL(None)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    assert libc.mincore(memory.ctypes.data, memory.size, pages.ctypes.data) == 0
    return int((pages & 1).sum()) * mmap.PAGESIZE


def held(length: int, kept: int, size: int) -> tuple[Sliding, Block]:
    block = Block(size)
    block.bytes[:] = 0
    block.warm = size
    memory = Sliding(length)
    memory.hold(block, kept, size)
    return memory, block


@pytest.mark.parametrize(("kept", "size"), [(0, 2 * HUGE), (HUGE, 4 * HUGE), (3 * HUGE, 5 * HUGE)])
def test_what_is_written_is_there_until_it_is_done_with(kept: int, size: int) -> None:
    length = 32 * MIB + 12345
    content = np.random.default_rng(3).integers(0, 256, length, np.uint8)
    memory, _ = held(length, kept, size)
    assert memory.end == size
    done = filled = 0
    while filled < length:
        end = min(memory.end, length)
        memory.bytes[filled:end] = content[filled:end]
        filled = end
        assert np.array_equal(memory.bytes[:kept], content[:kept])
        assert np.array_equal(
            memory.bytes[max(done, kept) : filled], content[max(done, kept) : filled]
        )
        assert resident(memory.bytes) <= size
        done = filled - HUGE // 2 - 17
        memory.slide(done)
    assert memory.end == whole_pieces(length)


def test_no_piece_moves_before_all_of_it_is_done_with() -> None:
    memory, _ = held(16 * MIB, HUGE, 3 * HUGE)
    for done, end in [(-5, 3), (HUGE, 3), (2 * HUGE - 1, 3), (2 * HUGE, 4), (4 * HUGE, 6)]:
        memory.slide(done)
        assert memory.end == end * HUGE
    memory.slide(10**9)
    assert memory.end == 8 * HUGE


def test_the_block_has_its_memory_again() -> None:
    memory, block = held(32 * MIB, HUGE, 4 * HUGE)
    assert resident(block.bytes) == 0
    memory.bytes[: memory.end] = 1
    memory.slide(9 * HUGE)
    memory.bytes[memory.end - 1] = 7
    memory.give_back()
    assert block.warm == 4 * HUGE
    assert resident(block.bytes) >= 4 * HUGE
    assert block.bytes[4 * HUGE - 1] == 7
    assert resident(memory.bytes) == 0
    memory.slide(10**9)
    memory.give_back()
    assert block.warm == 4 * HUGE
    again = Sliding(64 * MIB)
    again.hold(block, 2 * HUGE, 4 * HUGE)
    assert again.bytes[4 * HUGE - 1] == 7


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The system moves as many pieces as the list's number says, and then no more."""
    left = [10**9]
    move = sliding._move

    def moving(source: int, target: int) -> None:
        left[0] -= 1
        move(source, target if left[0] >= 0 else target + 1)

    monkeypatch.setattr(sliding, "_move", moving)
    available.cache_clear()
    yield left
    monkeypatch.undo()
    available.cache_clear()


def test_a_system_that_refuses_is_a_memory_error(refusing: list[int]) -> None:
    memory, block = held(32 * MIB, HUGE, 4 * HUGE)
    refusing[0] = 1
    with pytest.raises(MemoryError):
        memory.slide(10 * HUGE)
    assert memory.end == 5 * HUGE
    memory.bytes[:] = 1  # all of it is mapped still
    refusing[0] = 2
    memory.give_back()
    assert block.warm == 2 * HUGE


def test_it_is_known_that_a_system_cannot(refusing: list[int]) -> None:
    refusing[0] = 0
    assert not available()


def test_no_addresses_are_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        Sliding(2**60)


def test_addresses_take_no_memory() -> None:
    memory = Sliding(2**34)
    assert resident(memory.bytes) == 0
    memory.bytes[2**33] = 1
    assert resident(memory.bytes) <= HUGE
