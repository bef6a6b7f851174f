"""One request from its body to its answer's content, in stages.

What is small goes through all of them at once, on the event loop: a change of thread takes longer
than a small loss. All else leaves the loop, while it is watched whether the client is still there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, TypeVar

from kernels.steps import Work
from service import options
from service.body import Incoming, Receive
from service.buffers import Lease
from service.codecs import Codec, Limits, Message
from service.codecs.base import Answer, Arrays
from service.errors import Disconnected
from service.operation import (
    TENSORS,
    Operation,
    Service,
    check_answer,
    check_tensors,
    converted_bytes,
)

T = TypeVar("T")

# Bytes that are copied, converted or made on the event loop: some tens of microseconds.
_AT_ONCE = 2**16
# Bytes of a body from which on its logits are computed with before all of them have come.
_EARLY = 2**22


class Computation:
    """One request's stages, and what each left for the next.

    ``lease`` counts what it holds. Nothing is held here that a later stage has no use for: the
    body is given back before the answer is encoded.
    """

    def __init__(
        self,
        service: Service,
        operation: Operation,
        codec: Codec,
        reply: Codec,
        query: Mapping[str, str],
        lease: Lease,
        incoming: Incoming,
    ) -> None:
        self._service = service
        self._operation = operation
        self._codec = codec
        self._reply = reply
        self._query = query
        self._lease = lease
        self._incoming: Incoming | None = incoming
        self._message: Message | None = None
        self._work: Work | None = None

    async def content(self, receive: Receive) -> Answer:
        """The answer's content; raises what ``service.errors`` has a row for."""
        assert self._incoming is not None
        logits_at = await _received(self._incoming, self._codec)
        if self._codec.at_once(self._incoming.memory):
            self._message = self._decoded()
            if logits_at is None and self._converted() <= _AT_ONCE:
                self._work = self._checked()
                if self._work.quick and self._work.result_bytes <= _AT_ONCE:
                    return self._encoded(self._work.run())
        whole = asyncio.Event()
        watching = _watch(self._incoming, receive, whole)
        return await _unless(watching, self._in_lanes(logits_at, whole))

    async def _in_lanes(self, logits_at: int | None, whole: asyncio.Event) -> Answer:
        lease, transcode = self._lease, self._service.transcode
        if self._message is None:
            await whole.wait()
            await lease.grow(await transcode.call(self._decoded_bytes))
            self._message = await transcode.call(self._decoded)
        if self._work is None and self._converted() <= _AT_ONCE:
            self._work = self._checked()
        elif self._work is None:
            await whole.wait()
            await lease.grow(self._converted())
            self._work = await transcode.call(self._checked)
        outputs = await self._outputs(logits_at)
        await whole.wait()
        self._incoming = None
        lease.shrink(sum(array.nbytes for array in outputs.values()))
        needed = self._reply.encoded_bytes(outputs)
        if needed <= _AT_ONCE:
            return self._encoded(outputs)
        await lease.grow(needed)
        return await transcode.call(partial(self._encoded, outputs))

    async def _outputs(self, logits_at: int | None) -> Arrays:
        work, self._work, self._message = self._work, None, None
        assert work is not None
        await self._lease.grow(work.result_bytes)
        if work.quick and logits_at is None:
            return work.run()
        if logits_at is None:
            running = self._service.compute.run(work)
        else:
            running = self._service.compute.run(work, self._incoming, logits_at)
        del work
        return await running

    def _decoded_bytes(self) -> int:
        assert self._incoming is not None
        most = 2 * self._service.settings.max_decoded_bytes  # some is read twice
        return min(self._codec.decoded_bytes(self._incoming.memory), most)

    def _decoded(self) -> Message:
        assert self._incoming is not None
        limits = Limits(self._service.settings.max_decoded_bytes)
        message = self._codec.decode(self._incoming.memory, TENSORS, limits)
        check_tensors(self._operation, message, self._service.settings)
        return message

    def _converted(self) -> int:
        assert self._message is not None
        return converted_bytes(self._operation, self._message.tensors)

    def _checked(self) -> Work:
        message, operation = self._message, self._operation
        assert message is not None
        given = options.combine(
            operation.options, self._query, message.options, typed=self._codec.typed
        )
        return self._service.device.work(operation.compute, message.tensors, given)

    def _encoded(self, outputs: Arrays) -> Answer:
        check_answer(self._reply, outputs, self._service.settings.max_json_answer_elements)
        if self._operation.encode is not None:
            return self._operation.encode(self._reply, outputs)
        return self._reply.encode(outputs)


async def _received(incoming: Incoming, codec: Codec) -> int | None:
    """Return once the body is there, or all of it up to the byte, returned, where its logits begin.

    ``None``: all of it is there.
    """
    logits_at = None
    if incoming.filled < len(incoming.memory) >= _EARLY:
        logits_at = codec.ready_at(incoming.memory[: incoming.filled])
    if logits_at is None:
        await incoming.all()
    else:
        await incoming.at_least(logits_at)
    return logits_at


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
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return result
