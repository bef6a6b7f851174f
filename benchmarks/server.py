"""A server in a process of its own, for as long as a ``with`` block lasts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_ROOT = Path(__file__).resolve().parent.parent
_READY = re.compile(r"ready on (https?://\S+),")
_START_SECONDS = 300
_STOP_SECONDS = 30


@dataclass(frozen=True)
class Server:
    """A running server: its URL and its process id."""

    url: str
    process: int

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 80)


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[str]:
    """Run ``serving``; yields the URL alone."""
    with serving(*arguments, **environment) as server:
        yield server.url


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[Server]:
    """Run ``lossd serve`` on a free loopback port; ``arguments`` are further options of its.

    Raises ``RuntimeError`` as ``started`` does.
    """
    options = ("serve", "--port", "0", *arguments)
    with started("service.cli", options, LOSSD_HOST="127.0.0.1", **environment) as server:
        yield server


@contextmanager
def started(
    module: str, arguments: Sequence[str] = (), root: Path | str = _ROOT, **environment: str
) -> Iterator[Server]:
    """Run ``python -m module arguments`` from the moment that it prints "ready on" a URL.

    ``root`` is the checkout that it runs from. Raises ``RuntimeError``, with its log, where it does
    not get ready, or does not stop with status 0 on SIGTERM.
    """
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **environment},
        )
        try:
            url = _url_once_ready(process)
            if url is not None:
                yield Server(url, process.pid)
        finally:
            status = _stop(process)
        if url is None or status != 0:
            log.seek(0)
            what = "get ready" if url is None else "stop as told"
            raise RuntimeError(f"{module} did not {what} (status {status}):\n{log.read()}")


def _stop(process: subprocess.Popen[str]) -> int:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()
    return process.returncode


def _url_once_ready(process: subprocess.Popen[str]) -> str | None:
    assert process.stdout is not None
    # Reading the pipe has no deadline; it ends with the process.
    watch = threading.Timer(_START_SECONDS, process.kill)
    watch.start()
    try:
        for line in process.stdout:
            if match := _READY.search(line):
                return match[1]
        return None
    finally:
        watch.cancel()
