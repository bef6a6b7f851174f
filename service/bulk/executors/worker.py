"""Process that calls a function of bytes, as long as its parent lives.

Its standard input has tasks, its standard output the answers: 8 bytes of length, and for an answer
one byte that says whether it is a result or the text of an error, then the bytes themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from queue import SimpleQueue
from typing import IO

from service.bulk.work import PieceError

_LENGTH = 8
_RESULT, _ERROR = b"\0", b"\1"


def ask(process: subprocess.Popen[bytes], task: bytes) -> None:
    """Give ``process`` a task, whose answer ``answered`` reads; that also tells of a process that
    has ended, so this raises nothing.
    """
    assert process.stdin is not None
    with suppress(OSError, ValueError):  # a pipe without a reader, or closed
        process.stdin.write(len(task).to_bytes(_LENGTH, "little") + task)
        process.stdin.flush()


def answered(process: subprocess.Popen[bytes]) -> bytes:
    """Answer of ``process`` to the first task that has none yet.

    Raises ``PieceError``; ``EOFError`` if it has ended.
    """
    assert process.stdout is not None
    kind, content = _read(process.stdout, 1), _frame(process.stdout)
    if kind == _ERROR:
        raise PieceError(content.decode())
    return content


def _frame(file: IO[bytes]) -> bytes:
    return _read(file, int.from_bytes(_read(file, _LENGTH), "little"))


def _read(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _receive(tasks: SimpleQueue[bytes]) -> None:
    """Pass on the parent's tasks; end this process when the parent has gone, even in mid-task."""
    try:
        # Not sys.stdin: the interpreter closes that at its end, which waits for this thread.
        with os.fdopen(os.dup(0), "rb") as file:
            while True:
                tasks.put(_frame(file))
    except (EOFError, OSError):
        os._exit(0)


def answer(function: Callable[[bytes], bytes], task: bytes) -> tuple[bytes, bytes]:
    """Kind and content of the answer to ``task``."""
    try:
        return _RESULT, function(task)
    except PieceError as error:
        return _ERROR, str(error).encode()
    except Exception as error:
        return _ERROR, f"{type(error).__name__}: {error}".encode()


def main(name: str) -> None:
    """Answer tasks by the function ``name``, "module:function", until the parent has gone."""
    module, _, attribute = name.partition(":")
    tasks: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(tasks,), daemon=True).start()
    function = getattr(import_module(module), attribute)
    # Printed text goes to the standard error: it must not get between the answers.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        while True:
            kind, content = answer(function, tasks.get())
            out.write(kind + len(content).to_bytes(_LENGTH, "little") + content)
            out.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Exception:
        traceback.print_exc()
        os._exit(1)
