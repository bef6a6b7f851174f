"""A process is not ready before its formats give back what they are given."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service import warm
from service.codecs import CODECS, Message, json_scan


@pytest.fixture(autouse=True)
def _without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "compile_common", lambda: None)


def test_the_scanner_is_compiled_with_the_lock_of_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []

    @contextmanager
    def alone() -> Iterator[None]:
        events.append("locked")
        yield
        events.append("unlocked")

    own = json_scan.compiled

    def compiled() -> Any:
        events.append("compiled")
        return own()

    monkeypatch.setattr(warm, "compile_common", lambda: events.append("kernels"))
    monkeypatch.setattr(warm, "one_at_a_time", alone)
    monkeypatch.setattr(json_scan, "compiled", compiled)
    warm.warm_up()
    assert events[:4] == ["kernels", "locked", "compiled", "unlocked"]


def test_nothing_is_compiled_by_an_import() -> None:
    code = (
        "import service.app, service.codecs.json_scan as scan\n"
        "print(scan.compiled.cache_info().currsize)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "0\n"


def test_the_formats_are_as_they_should_be() -> None:
    warm.warm_up()


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_format_that_changes_a_tensor_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, codec: Any
) -> None:
    def off_by_one(*arguments: Any) -> Message:
        message = codec.decode(*arguments)
        return Message(message.tensors | {"labels": message.tensors["labels"] + 1}, {})

    monkeypatch.setattr(warm, "CODECS", (codec._replace(decode=off_by_one),))
    with pytest.raises(RuntimeError, match=f"{codec.name} does not return the labels"):
        warm.warm_up()
