"""A process is not ready before its formats give back what they are given."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from kernels import dtypes
from service.codecs import CODECS, Message
from service.codecs.json import scanner
from service.process import warm_up


@pytest.fixture(autouse=True)
def _without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "compile_common", lambda offered, more, told: [])


def test_the_scanner_is_compiled_with_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def compile_common(offered: Any, more: Any, told: Any) -> list[str]:
        seen.extend((offered, *more))
        return []

    monkeypatch.setattr(warm_up, "compile_common", compile_common)
    warm_up.warm_up(dtypes.FLOATS[:1])
    offered, job = seen
    assert offered == dtypes.FLOATS[:1]
    scanner.compiled.cache_clear()
    job.run()
    assert scanner.compiled.cache_info().currsize == 1


def test_nothing_is_compiled_by_an_import() -> None:
    code = (
        "import service.app, service.codecs.json.scanner as scan\n"
        "print(scan.compiled.cache_info().currsize)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "0\n"


def test_the_formats_are_as_they_should_be() -> None:
    warm_up.warm_up()


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_format_that_changes_a_tensor_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, codec: Any
) -> None:
    decode = codec.decode

    def off_by_one(*arguments: Any) -> Message:
        message = decode(*arguments)
        return Message(message.tensors | {"labels": message.tensors["labels"] + 1}, {})

    monkeypatch.setattr(codec, "decode", off_by_one)
    monkeypatch.setattr(warm_up, "CODECS", (codec,))
    with pytest.raises(RuntimeError, match=f"{codec.name} does not return the labels"):
        warm_up.warm_up()
