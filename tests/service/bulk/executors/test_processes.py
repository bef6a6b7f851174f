"""Worker processes: what they answer, and what becomes of those that are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest

from service.bulk.executors import worker
from service.bulk.executors.processes import Processes
from service.bulk.work import PieceError, score_piece


def act(task: bytes) -> bytes:
    """Do what the task says, in a worker."""
    match task.decode().split(":", 1):
        case ["say", text]:
            print(text)  # must not get between the answers
            return f"{text} by {os.getpid()}".encode()
        case ["threads", _]:
            return os.environ["NUMBA_NUM_THREADS"].encode()
        case ["die", number]:
            os.kill(os.getpid(), int(number))
            return b""
        case ["fail", text]:
            raise PieceError(text)
        case ["sleep", path]:
            Path(path).write_text(str(os.getpid()))
            time.sleep(600)
            return b""
        case _:
            raise KeyError(task)


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    with Processes(2, function=act) as executor:
        yield executor


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def eventually(true: object) -> None:
    assert callable(true)
    while not true():
        time.sleep(0.01)


def test_each_task_has_its_answer(two: Processes) -> None:
    tasks = [f"say:{number}" for number in range(40)]
    futures = [two.submit(act, task.encode()) for task in tasks]
    answers = [future.result().decode().split() for future in futures]
    assert [int(number) for number, _, _ in answers] == list(range(40))
    assert {int(process) for _, _, process in answers} <= set(two.processes)
    assert two.submit(act, b"threads:").result() == b"1"


def test_errors_are_told_as_text(two: Processes) -> None:
    with pytest.raises(PieceError, match=r"^no rows$"):
        two.submit(act, b"fail:no rows").result()
    with pytest.raises(PieceError, match="KeyError"):
        two.submit(act, b"what").result()


@pytest.mark.parametrize(
    ("number", "text"),
    [(signal.SIGKILL, "SIGKILL: out of memory, maybe"), (signal.SIGBUS, "cut off while it was")],
)
def test_a_process_that_dies_is_replaced(two: Processes, number: int, text: str) -> None:
    tasks = [b"say:1", f"die:{int(number)}".encode(), *[b"say:2"] * 6]
    futures = [two.submit(act, task) for task in tasks]
    wait(futures)
    with pytest.raises(PieceError, match=text):
        futures[1].result()
    assert all(b" by " in future.result() for future in (futures[0], *futures[2:]))


def test_it_can_be_ended_at_once(tmp_path: Path) -> None:
    executor = Processes(1, function=act)
    future = executor.submit(act, f"sleep:{tmp_path / 'pid'}".encode())
    later = executor.submit(act, b"say:1")
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    executor.shutdown(cancel_futures=True)
    assert later.cancelled()
    assert future.done()
    assert gone(int((tmp_path / "pid").read_text()))
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(act, b"say:1")


def test_only_its_function_can_be_submitted(two: Processes) -> None:
    for arguments in ((score_piece, b""), (act,), (act, b"", b"")):
        with pytest.raises(ValueError, match="only act"):
            two.submit(*arguments)


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """Even in the middle of a piece: nobody will ask for it."""
    import subprocess
    import sys

    name = f"{act.__module__}:{act.__name__}"
    child = subprocess.Popen(
        [sys.executable, "-m", worker.__name__, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[4],
    )
    assert child.stdin is not None
    task = f"sleep:{tmp_path / 'pid'}".encode()
    child.stdin.write(len(task).to_bytes(8, "little") + task)
    child.stdin.flush()
    eventually(lambda: (tmp_path / "pid").exists())
    child.stdin.close()
    assert child.wait(60) == 0
    assert child.stdout is not None
    child.stdout.close()
