"""A process is not ready before its formats give back what they are given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service import warm
from service.codecs import CODECS, Message


@pytest.fixture(autouse=True)
def _without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "compile_common", lambda: None)


def test_the_formats_are_as_they_should_be() -> None:
    warm.warm_up()


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_format_that_changes_a_tensor_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, codec: Any
) -> None:
    def off_by_one(*arguments: Any) -> Message:
        message = codec.decode(*arguments)
        return Message(message.tensors | {"labels": message.tensors["labels"] + 1}, {})

    monkeypatch.setattr(warm, "CODECS", (replace(codec, decode=off_by_one),))
    with pytest.raises(RuntimeError, match=f"{codec.name} does not return the labels"):
        warm.warm_up()
