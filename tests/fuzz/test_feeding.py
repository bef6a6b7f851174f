"""However a body comes, whole or in pieces, early or late: the same message or refusal."""

from __future__ import annotations

import random
import tracemalloc
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from typing import Any, TypeVar

import numpy as np
import pytest

from service.codecs import Codec
from service.codecs.base import Message
from service.errors import DecodeError
from service.request.body import Reception
from tests.fuzz.bodies import EXAMPLES, LIMITS, codec, decode, example
from tests.fuzz.makers import pieces
from tests.service.codecs import samples

T = TypeVar("T")
FORMATS = ("json", "safetensors", "npz", "infer")
LIMIT = 1 << 16  # bytes of a body: some seeds are larger


class Lease:
    """As much as is asked for, and the sum of it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def memory(self, size: int) -> samples.Array:
        return np.full(size, 0xA5, np.uint8)

    def expect_more(self) -> None: ...

    async def grow(self, size: int) -> None:
        self.size += size


class Source:
    """A client: ``pieces`` as a server's messages, or, after the first, by landing."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = deque(pieces)

    async def receive(self) -> MutableMapping[str, Any]:
        piece = self._pieces.popleft() if self._pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def receive_into(self, destination: memoryview, progress: Callable[[int], None]) -> None:
        rest = b"".join(self._pieces)
        self._pieces = deque([rest[len(destination) :]])
        step = 1 + len(destination) // 4
        for start in range(0, len(destination), step):
            end = min(start + step, len(destination))
            destination[start:end] = rest[start:end]
            progress(end)


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which waits for nothing: without an event loop's time."""
    try:
        work.send(None)
    except StopIteration as stopped:
        result: T = stopped.value
        return result
    raise AssertionError("it waits")


async def fed(made: Codec, source: Source, length: int | None, landing: bool) -> Message:
    """Decoded message, early where that can be."""
    lease = Lease(length or 0)
    extension = source if landing else None
    incoming = await Reception(source.receive, extension, made, length, LIMIT).body(lease)
    assert lease.size <= max(2 * len(incoming.memory) + 2**18, length or 0)
    at = made.ready_at(incoming.memory[: incoming.filled])
    if at is not None and at <= len(incoming.memory):
        await incoming.at_least(at)
        early = decode(made, incoming.memory)
        await incoming.all()
        return early
    return decode(made, await incoming.all())


def outcome(made: Codec, source: Source, length: int | None, landing: bool) -> Message | str:
    try:
        return finished(fed(made, source, length, landing))
    except DecodeError as error:
        return f"{error.message} {error.where}"


def agree(one: Message | str, other: Message | str) -> None:
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
        return
    assert repr(one.options) == repr(other.options)
    assert one.tensors.keys() == other.tensors.keys()
    assert all(samples.same(one.tensors[name], other.tensors[name]) for name in one.tensors)


@pytest.mark.parametrize("name", FORMATS)
def test_it_does_not_matter_how_a_body_comes(name: str) -> None:
    taken = 0
    for number in range(EXAMPLES):
        sent = example(name, number)
        if len(sent.raw) > LIMIT:
            continue
        rng = random.Random(-number - 1)
        length = len(sent.raw)
        try:
            whole = outcome(codec(name, sent), Source(iter([sent.raw])), length, False)
            way = rng.randrange(3)
            source = Source(pieces(rng, sent.raw))
            other = outcome(codec(name, sent), source, None if way == 0 else length, way == 1)
            agree(whole, other)
        except Exception as error:
            error.add_note(f"example {number} of {name}: {sent!r}")
            raise
        taken += isinstance(whole, Message)
    assert 0.05 * EXAMPLES < taken < 0.95 * EXAMPLES


@pytest.mark.parametrize("name", FORMATS)
def test_a_body_that_is_not_as_long_as_it_says_is_refused(name: str) -> None:
    for number in range(0, EXAMPLES, 20):
        sent = example(name, number)
        if not sent.raw:
            continue
        rng = random.Random(number)
        for length in (len(sent.raw) - 1, len(sent.raw) + 1):
            if length:
                found = outcome(codec(name, sent), Source(pieces(rng, sent.raw)), length, False)
                assert isinstance(found, str)


@pytest.mark.parametrize("name", [*FORMATS, "npy"])
def test_reading_allocates_no_more_than_it_says(name: str) -> None:
    """Or, where it does not say, in proportion to the body."""
    for number in range(0, EXAMPLES, 40):
        sent = example(name, number)
        made, read = codec(name, sent), memoryview(bytearray(sent.raw))
        said = 0
        tracemalloc.start()
        try:
            said = made.decoded_bytes(read)
            made.decode(read, samples.NAMES, LIMITS)
        except DecodeError:
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert said <= 8 * (LIMITS.decoded_bytes + len(sent.raw)) + (1 << 17), number
        assert peak < 2 * LIMITS.decoded_bytes + 20 * len(sent.raw) + (1 << 17), number
