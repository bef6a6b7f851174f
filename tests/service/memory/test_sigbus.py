"""A mapping that loses its file is zeros from then on, and says so; all other faults still kill."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from service.memory import sigbus
from service.memory.sigbus import Watched
from tests.service.shared import region

SIZE = 1 << 20


def mapped(path: Path, size: int = SIZE) -> tuple[mmap.mmap, Watched]:
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), size)
    return memory, Watched(memory)


def watched_rows() -> int:
    return int(np.count_nonzero(sigbus._mappings[:, 1]))


@pytest.mark.parametrize("left", [0, 1, 4096, SIZE - 4096])
def test_reading_what_was_cut_off_gives_zeros(left: int) -> None:
    with region(b"\1" * SIZE) as path:
        memory, watched = mapped(path)
        array = np.frombuffer(memory, np.uint8)
        assert (int(array.sum()), watched.lost) == (SIZE, False)
        os.truncate(path, left)
        # What is left may have been read before the end was missed.
        assert array.sum() <= left
        assert watched.lost
        assert not array.any()


def test_writing_what_was_cut_off_does_nothing() -> None:
    with region(SIZE) as path:
        memory, watched = mapped(path)
        os.truncate(path, 0)
        np.frombuffer(memory, np.uint8)[:] = 1
        assert watched.lost
        assert path.stat().st_size == 0


def test_others_are_untouched() -> None:
    with region(b"\1" * SIZE) as path, region(b"\2" * SIZE) as other:
        (memory, watched), (near, near_watched) = mapped(path), mapped(other)
        os.truncate(path, 0)
        assert np.frombuffer(memory, np.uint8).sum() == 0
        assert np.frombuffer(near, np.uint8).sum() == 2 * SIZE
        assert (watched.lost, near_watched.lost) == (True, False)


def test_many_threads_may_miss_it_at_once() -> None:
    with region(b"\1" * SIZE) as path:
        memory, watched = mapped(path)
        array = np.frombuffer(memory, np.uint8)
        begin = threading.Barrier(5)

        def read() -> None:
            begin.wait()
            for _ in range(200):
                array.sum()

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        begin.wait()
        os.truncate(path, 0)
        for thread in threads:
            thread.join()
        assert array.sum() == 0
        assert watched.lost


def test_what_is_no_longer_mapped_is_forgotten() -> None:
    gc.collect()
    before = watched_rows()
    with region(SIZE) as path:
        for _ in range(2 * sigbus.MOST):
            memory, watched = mapped(path)
            assert watched_rows() == before + 1
            del memory, watched
        kept = [mapped(path) for _ in range(sigbus.MOST - before)]
        with pytest.raises(sigbus.TooManyMappings):
            mapped(path)
        del kept
    assert watched_rows() == before


# Another mapping's loss, which nobody watches, ends the process as it would have before.
UNWATCHED = """
import mmap, os, sys
from service.memory import sigbus
sigbus.install()
file = open(sys.argv[1], "r+b")
memory = mmap.mmap(file.fileno(), 4096)
os.truncate(sys.argv[1], 0)
memory[0]
"""


def test_any_other_fault_ends_the_process_as_before() -> None:
    with region(4096) as path:
        ended = subprocess.run([sys.executable, "-c", UNWATCHED, path], check=False, timeout=120)
    assert ended.returncode == -signal.SIGBUS
