"""Compilation ahead of time: for a CPU that this machine need not be, so that no kernel is run.

A process that has loaded its kernels knows their signatures. Others, in which Numba compiles for
another CPU (``NUMBA_CPU_NAME``), compile the same, and write them to a cache of their own.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from numba.core import serialize

from kernels.cache import DISPATCHERS
from kernels.compiling import ChildFailed, Progress, Told, collect_seldom


class Compiled(NamedTuple):
    """Function of ``module`` that is compiled for ``signature``, by its name in the cache."""

    module: str
    function: str
    signature: Any


def loaded() -> list[Compiled]:
    """All that this process has loaded from the cache or compiled."""
    return [
        Compiled(dispatcher.py_func.__module__, function, signature)
        for function, dispatcher in DISPATCHERS.items()
        for signature in dispatcher._cache.signatures
    ]


def compile_for(
    environment: Mapping[str, str],
    wanted: Sequence[Compiled],
    children: int,
    told: Told | None = None,
) -> None:
    """Compile ``wanted`` in ``children`` processes with the variables ``environment``.

    ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` say what for, ``NUMBA_CACHE_DIR`` where to.
    Raises ``ChildFailed``.
    """
    progress = Progress(len(wanted), told)
    failures: list[str] = []

    def work(share: Sequence[Compiled]) -> None:
        command = [sys.executable, "-P", "-m", __name__]
        with subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(bytes(serialize.dumps(list(share))))
            process.stdin.close()
            for _ in process.stdout:
                progress.done()
        if process.returncode:
            failures.append(f"a process that compiled ended, status {process.returncode}")

    shares = [share for first in range(children) if (share := wanted[first::children])]
    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(1.0)
            progress.tell()
    if failures:
        raise ChildFailed("; ".join(failures))


def main() -> None:
    """Compile what the standard input lists, and print the name of each when it is done."""
    logging.disable()  # the parent looks at what there is afterwards
    collect_seldom()
    for module, function, signature in serialize.loads(sys.stdin.buffer.read()):
        import_module(module)
        DISPATCHERS[function].compile(signature)
        print(function, flush=True)


if __name__ == "__main__":
    main()
