"""Slow clients in a process of their own.

``python -m benchmarks.hostile.slow_clients URL HEADERS BODIES`` prints "ready on URL" once all of
them are connected, and goes on until SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from benchmarks.hostile.crowd import slow
from benchmarks.server import Server


async def _attack(url: str, headers: int, bodies: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with slow(Server(url, 0).address, headers, bodies):
        print(f"ready on {url},", flush=True)
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_attack(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
