"""Processes of a server, as the system shows them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 60  # seconds until a test that hangs fails


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end, "this takes too long"
        time.sleep(0.02)


def state(process: int) -> str:
    """The letter that Linux has for what ``process`` does; Z once it has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def workers(parent: int) -> list[int]:
    """The processes that ``parent`` has spawned and that live: its workers."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [
        int(child)
        for child in children
        if state(int(child)) != "Z" and b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
