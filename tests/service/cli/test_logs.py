"""The log: its form, and the thread that writes it."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from service.cli import logs

_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_709_210_096.9996, "2024-02-29T12:34:56.999Z"),
        (1_709_210_097, "2024-02-29T12:34:57.000Z"),
    ],
)
def test_times_are_those_of_rfc_3339(seconds: float, text: str) -> None:
    assert logs.now(seconds) == text
    assert re.fullmatch(_TIME, logs.now())


def formatted(form: str, level: int, text: str, failure: Exception | None = None) -> str:
    """A line of the log, as the configuration has it written."""
    configured = logs.config("json" if form == "json" else "text")
    configurator = logging.config.DictConfigurator(configured)
    formatter = configurator.configure_formatter(configurator.config["formatters"]["messages"])
    info = None if failure is None else (type(failure), failure, failure.__traceback__)
    record = logging.LogRecord("uvicorn.lossd", level, "", 0, "%s!", (text,), info)
    return formatter.format(record)


def test_a_line_of_text_has_time_level_and_message() -> None:
    line = formatted("text", logging.WARNING, "take care")
    assert re.fullmatch(_TIME + r" WARNING:  take care!", line)


def test_a_line_of_json_is_one_object_however_long() -> None:
    line = json.loads(formatted("json", logging.INFO, 'a "quoted"\nline'))
    assert re.fullmatch(_TIME, line.pop("time"))
    message = 'a "quoted"\nline!'
    assert line == {"level": "info", "message": message, "logger": "uvicorn.lossd"}
    try:
        raise ValueError("x" * 100_000)
    except ValueError as error:
        text = formatted("json", logging.ERROR, "y" * 100_000, error)
    assert len(text) < 8192
    assert json.loads(text)["exception"].endswith("xxx")
    assert sys.exc_info()[0] is None


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that is full, and both its ends."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 65536)
    os.set_blocking(writing, True)
    yield reading, writing
    os.close(writing)
    os.close(reading)


def lines_of(reading: int, last: str) -> list[str]:
    """All lines that can be read, up to one that holds ``last``."""
    text = ""
    while last not in text:
        text += os.read(reading, 65536).decode()
    return text.lstrip("x").splitlines()


def test_lines_that_nobody_reads_are_dropped_counted_and_told(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = logs.Writer(writing, most=10)
    for number in range(1000):
        writer.put(f"line {number}")
    writer.flush(timeout=0.01)  # does not wait for ever
    lines = lines_of(reading, "dropped")
    written = [line for line in lines if line.startswith("line ")]
    [said] = [line for line in lines if "dropped" in line]
    dropped = int(said.split("WARNING:")[1].split()[0])
    assert len(written) + dropped == 1000
    # The first ones: as many as there is room for, and those that the thread has taken already.
    assert written == [f"line {number}" for number in range(len(written))]
    assert 10 <= len(written) < 1000
    writer.put("afterwards")
    assert lines_of(reading, "afterwards") == ["afterwards"]


def test_a_line_may_be_only_so_long(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    logs.Writer(writing).put("y" * 100_000 + "z")
    [line] = lines_of(reading, "more characters")
    assert line == "y" * 8192 + " [91809 more characters]"


def test_lines_are_made_when_they_are_written_and_one_that_cannot_be_stops_none(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    writer = logs.Writer(writing, most=10_000)

    def failing() -> str:
        raise ValueError("no such path")

    for number in range(1000):  # more than may wait to be made
        writer.put(partial("line {}".format, number))
    writer.put(failing)
    writer.put(lambda: "z" * 10_000)
    writer.put("end")
    lines = lines_of(reading, "end")
    assert lines[:1000] == [f"line {number}" for number in range(1000)]
    assert "ValueError('no such path')" in lines[1000]
    assert lines[1001] == "z" * 8192 + " [1808 more characters]"


def test_lines_of_several_threads_are_all_written(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writer = logs.Writer(writing)

    def put(n: int) -> None:
        for i in range(100):
            writer.put(f"{n} {i}")

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.put("end")
    lines = lines_of(reading, "end")
    for n in range(4):
        assert [line for line in lines if line.startswith(f"{n} ")] == [
            f"{n} {i}" for i in range(100)
        ]


def test_what_cannot_be_written_ends_nothing(pipe: tuple[int, int]) -> None:
    reading, _ = pipe
    logs.write(reading, "not for writing")  # EBADF
    logs.write(10**6, "no such file")
