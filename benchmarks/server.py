"""A service in a process of its own, for as long as a ``with`` block lasts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_READY = re.compile(r"ready on (http://\S+),")
_START_SECONDS = 300
_STOP_SECONDS = 30


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[str]:
    """Start ``lossd serve`` on a free port of the loopback, wait until it is ready, give its URL.

    ``arguments`` are more of its options. Raises ``RuntimeError``, with what the service logged,
    where it does not get ready, or does not stop with status 0 when told to.
    """
    command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", *arguments]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "LOSSD_HOST": "127.0.0.1", **environment},
        )
        try:
            url = _url_once_ready(process)
            if url is not None:
                yield url
        finally:
            status = _stop(process)
        if url is None or status != 0:
            log.seek(0)
            what = "get ready" if url is None else "stop as told"
            raise RuntimeError(f"the service did not {what} (status {status}):\n{log.read()}")


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
    # Reading has no deadline of its own; the pipe ends with the process.
    watch = threading.Timer(_START_SECONDS, process.kill)
    watch.start()
    try:
        for line in process.stdout:
            if match := _READY.search(line):
                return match[1]
        return None
    finally:
        watch.cancel()
