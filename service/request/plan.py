"""Large bodies that are computed while they come, in memory that is a small part of their length.

Their beginning says whether they can be: labels come before logits, and the kernel reads these in
the order in which they lie.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import numpy as np

from kernels.steps import Work
from service.codecs import Message
from service.memory import sliding
from service.memory.budget import Lease
from service.memory.flow import Flow
from service.memory.pages import ALIGNMENT
from service.memory.sliding import Sliding, whole_pieces
from service.request import body
from service.request.body import Begun, Incoming, Landing
from service.request.operation import Asked, converted_bytes

# Bytes of a body from which on it is streamed.
LEAST = 2**26
# Bytes of logits of a step, and how many may come while it runs and until the next one begins: at
# least HUGE, which is what slides, or a body would wait for ever.
STEP = 2**22
AHEAD = 3 * STEP


class Head(NamedTuple):
    """What the beginning of a large body tells of it.

    ``message`` is of the whole body, of which everything up to byte ``logits_at`` and then the
    logits are still to come. ``step``: bytes of logits that are computed with at a time, where the
    body is streamed; then what its tensors are converted to, and the results, are leased already.
    """

    message: Message
    logits_at: int
    step: int | None


class Streamed(Incoming):
    """A body that lies in ``sliding``, and may be longer than the memory behind that.

    What does not fit comes once enough is ``passed``, which is to be told on the event loop.
    """

    def __init__(self, begun: Begun, landing: Landing | None, sliding: Sliding) -> None:
        self._start = begun.start_in(sliding.bytes)
        self._sliding = sliding
        super().__init__(_lying(begun, sliding), len(begun.prefix), landing or begun.messages)
        self._room = asyncio.Event()
        self._refusal: MemoryError | None = None

    async def at_least(self, count: int) -> None:
        """As ``Incoming.at_least``; waits for room, and raises ``MemoryError`` if there is none."""
        while self.filled < count:
            if self._refusal is not None:
                raise self._refusal
            self._room.clear()
            await super().at_least(min(count, self._sliding.end - self._start))
            if self.filled < count:
                await self._room.wait()

    def passed(self, count: int) -> None:
        """As ``Incoming.passed``; whoever waits for room learns if the system gives none."""
        try:
            self._sliding.slide(self._start + count)
        except MemoryError as error:
            self._refusal = error
        self._room.set()


class _Plan(NamedTuple):
    """Where the tensors of ``head`` are to lie, and how much memory is to be leased for all.

    ``size`` bytes, ``held`` of them behind ``memory``, where ``kept`` never move; ``None``: as
    many as the body has.
    """

    head: Head
    memory: Sliding
    kept: int = 0
    held: int = 0
    size: int | None = None


async def received(
    asked: Asked, flow: Flow, length: int, limit: int
) -> tuple[Lease, Incoming, Head | None]:
    """A body of ``length`` bytes whose beginning is there, and a lease of the memory it takes.

    With a ``Head``, if its logits come last and its beginning says all of the rest. Raises what
    ``body.begin`` and ``Budget.lease`` do, and what is wrong with what the beginning says.
    """
    budget, landing = asked.service.budget, flow.landing
    async with budget.opening(flow):
        begun = await body.begin(flow.receive, asked.codec, length, limit)
        plan = _planned(asked, begun) if sliding.available() else None
        if plan is None or plan.size is None:
            lease = await budget.lease(length, claim=length * asked.codec.growth)
        else:
            lease = await budget.lease(plan.size, plan.held)
    flow.lease = lease
    try:
        if plan is not None and plan.size is not None:
            lease.behind(plan.memory, plan.kept, plan.held)
            return lease, Streamed(begun, landing, plan.memory), plan.head
        incoming = await body.whole(begun, landing, limit, lease)
        return lease, incoming, None if plan is None else _moved(plan, begun, incoming.memory)
    except BaseException:
        lease.release()
        raise


def _planned(asked: Asked, begun: Begun) -> _Plan | None:
    """How to receive the body, if its beginning says all but its logits."""
    assert begun.length is not None
    codec, prefix = asked.codec, memoryview(begun.prefix)
    logits_at = codec.ready_at(prefix)
    if logits_at is None or not codec.at_once(prefix):
        return None
    memory = Sliding(ALIGNMENT + begun.length)
    message = asked.decoded(_lying(begun, memory))
    kept = whole_pieces(ALIGNMENT + max(logits_at, len(prefix)))
    work = _unbegun(asked, message)
    if work is not None and work.window is not None:
        held = kept + whole_pieces(work.window + AHEAD)
        if held <= begun.length // 2:
            size = held + work.result_bytes + converted_bytes(asked.operation, message.tensors)
            return _Plan(Head(message, logits_at, STEP), memory, kept, held, size)
    return _Plan(Head(message, logits_at, None), memory)


def _lying(begun: Begun, memory: Sliding) -> memoryview:
    """The body in ``memory``, with the bytes that are there."""
    assert begun.length is not None
    start = begun.start_in(memory.bytes)
    content = memory.bytes[start : start + begun.length].data
    content[: len(begun.prefix)] = begun.prefix
    return content


def _moved(plan: _Plan, begun: Begun, content: memoryview) -> Head:
    """The head, its tensors where they lie in ``content``. No codec decodes a body twice."""
    origin = plan.memory.bytes.ctypes.data + begun.start_in(plan.memory.bytes)
    tensors = dict(plan.head.message.tensors)
    for name, array in tensors.items():
        at = array.ctypes.data - origin
        if 0 <= at < len(content):
            tensors[name] = np.ndarray(array.shape, array.dtype, content, at, array.strides)
    return plan.head._replace(message=plan.head.message._replace(tensors=tensors))


def _unbegun(asked: Asked, message: Message) -> Work | None:
    """The work, for what it says of itself; ``None`` where to make it takes more than shapes."""
    tensors = {name: message.tensors[name] for name in asked.operation.needs}
    if converted_bytes(asked.operation, tensors):
        return None
    return asked.work(tensors, message.options, STEP)
