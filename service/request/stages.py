"""One request from its body to its answer's content, in stages.

What is small goes through all of them at once, on the event loop: a change of thread takes longer
than a small loss. All else leaves the loop, while it is watched whether the client is still there.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from time import perf_counter
from traceback import clear_frames
from typing import Any, TypeVar

from kernels.steps import Work
from service.codecs import Message
from service.codecs.base import Answer, Arrays, TakesLong
from service.errors import Disconnected, Expired
from service.memory.budget import Lease
from service.request.body import Incoming, Receive
from service.request.operation import Asked, converted_bytes
from service.request.streaming import Head

T = TypeVar("T")

# Bytes that are copied, converted or made on the event loop: some tens of microseconds.
_AT_ONCE = 2**16
# Seconds after which decoding gives up on the event loop, to be done again in a lane.
_SOON = 0.002
# Bytes of a body from which on its logits are computed with before all of them have come.
_EARLY = 2**22


class Computation:
    """One request's stages, and what each left for the next.

    ``lease`` counts what it holds. Nothing is held here that a later stage has no use for: the
    body is given back before the answer is encoded. ``head``: what the body's beginning has told.
    """

    def __init__(
        self, asked: Asked, lease: Lease, incoming: Incoming, head: Head | None = None
    ) -> None:
        self._asked = asked
        self._lease = lease
        self._incoming: Incoming | None = incoming
        self._message: Message | None = None if head is None else head.message
        self._logits_at = None if head is None else head.logits_at
        self._step = None if head is None else head.step
        self._work: Work | None = None

    async def content(self, receive: Receive) -> Answer:
        """The answer's content; raises what ``service.errors`` has a row for."""
        assert self._incoming is not None
        logits_at = await self._received()
        if self._message is None and self._asked.codec.at_once(self._incoming.memory):
            with suppress(TakesLong):
                self._message = self._decoded(perf_counter() + _SOON)
                if logits_at is None and self._converted() <= _AT_ONCE:
                    self._work = self._checked()
                    if self._work.quick and self._work.result_bytes <= _AT_ONCE:
                        return self._asked.encoded(self._work.run())
        whole = asyncio.Event()
        watching = _watch(self._incoming, receive, whole)
        return await _unless(watching, self._in_lanes(logits_at, whole))

    async def _in_lanes(self, logits_at: int | None, whole: asyncio.Event) -> Answer:
        lease = self._lease
        if self._message is None:
            await whole.wait()
            await lease.grow(await self._transcoded(self._decoded_bytes))
            # The thread itself gives up then, too.
            until = perf_counter() + self._seconds
            self._message = await self._transcoded(partial(self._decoded, until))
        else:
            await self._grow(self._decoded_bytes())
        if self._work is None and self._converted() <= _AT_ONCE:
            self._work = self._checked()
        elif self._work is None:
            if logits_at is None or not self._aligned():
                await whole.wait()
            await self._grow(self._converted())
            self._work = await self._transcoded(self._checked)
        outputs = await self._outputs(logits_at)
        await whole.wait()
        self._incoming = None
        lease.shrink(sum(array.nbytes for array in outputs.values()))
        needed = self._asked.reply.encoded_bytes(outputs)
        if needed <= _AT_ONCE:
            return self._asked.encoded(outputs)
        await lease.grow(needed)
        return await self._transcoded(partial(self._asked.encoded, outputs))

    async def _transcoded(self, function: Callable[[], T]) -> T:
        """``function`` called in the lane for such; raises ``Expired`` if that takes too long."""
        seconds = self._seconds
        try:
            return await self._asked.service.transcode.call(function, seconds)
        except TakesLong:
            raise Expired(f"this has not been decoded within {seconds:g} s") from None

    @property
    def _seconds(self) -> float:
        return self._asked.service.settings.compute_seconds

    async def _outputs(self, logits_at: int | None) -> Arrays:
        work, self._work, self._message = self._work, None, None
        compute = self._asked.service.compute
        assert work is not None
        await self._asked.service.compiler.compiled(work.uncompiled)
        await self._grow(work.result_bytes)
        if work.quick and logits_at is None:
            return work.run()
        if logits_at is None:
            running = compute.run(work)
        else:
            running = compute.run(work, self._incoming, logits_at)
        del work
        return await running

    async def _grow(self, size: int) -> None:
        """Lease ``size`` bytes more; where the body is streamed, they are leased already."""
        if self._step is None:
            await self._lease.grow(size)

    async def _received(self) -> int | None:
        """Return once the body is there, or all of it up to the byte, returned, of its logits.

        ``None``: all of it is there.
        """
        incoming, logits_at = self._incoming, self._logits_at
        assert incoming is not None
        if logits_at is None and incoming.filled < len(incoming.memory) >= _EARLY:
            logits_at = self._asked.codec.ready_at(incoming.memory[: incoming.filled])
        if logits_at is None:
            await incoming.all()
        else:
            await incoming.at_least(logits_at)
        return logits_at

    def _decoded_bytes(self) -> int:
        assert self._incoming is not None
        most = 2 * self._asked.service.settings.max_decoded_bytes  # some is read twice
        return min(self._asked.codec.decoded_bytes(self._incoming.memory), most)

    def _decoded(self, until: float = math.inf) -> Message:
        assert self._incoming is not None
        return self._asked.decoded(self._incoming.memory, until)

    def _converted(self) -> int:
        assert self._message is not None
        return converted_bytes(self._asked.operation, self._message.tensors)

    def _aligned(self) -> bool:
        assert self._message is not None
        return self._message.tensors[self._asked.operation.needs[0]].flags.aligned

    def _checked(self) -> Work:
        message = self._message
        assert message is not None
        return self._asked.work(message.tensors, message.options, self._step)


async def _watch(incoming: Incoming, receive: Receive, whole: asyncio.Event) -> None:
    """Receive the rest of the body, then see whether the client goes: ``Disconnected``."""
    await incoming.all()
    whole.set()
    del incoming
    while (await receive())["type"] != "http.disconnect":
        pass
    raise Disconnected


async def _unless(watching: Coroutine[Any, Any, None], work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, but cancel it and raise what ``watching`` raises where that is first."""
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(watching)
            result = await work
            watcher.cancel()
            return result
    except BaseExceptionGroup as errors:
        raised = _let_go(errors)
    # What is raised has a traceback to here, and would have the group as its context.
    del watcher
    raise raised.pop(0)


def _let_go(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """What ``group`` is of, once the frames that it all came through hold nothing any more.

    asyncio's own keeps the group, and futures keep what they raised: circles, in which a failed
    request's body would outlive its lease until the next collection.
    """
    for error in (group, *group.exceptions):
        clear_frames(error.__traceback__)
    return list(group.exceptions)
