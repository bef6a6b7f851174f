"""Stages of a request from its body to its answer: decode, check, compute, encode.

Each runs on the event loop if it is over at once, and else in a lane. Stages return values, and
what none of them returns is given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from time import perf_counter, perf_counter_ns
from traceback import clear_frames
from typing import Any, TypeAlias, TypeVar

from kernels.steps import Steps, Work
from service import regimes
from service.codecs.base import Answer, Arrays, Message, TakesLong
from service.compute.lane import Source
from service.errors import Disconnected, Expired
from service.memory.budget import Lease
from service.memory.upload import Receive
from service.request.body import Body
from service.request.head import Head
from service.request.operation import Call
from service.telemetry.entry import COMPUTED, COMPUTING, DECODED, DECODING, RECEIVED

T = TypeVar("T")
# Leases so many bytes more, before they are taken.
Grow: TypeAlias = Callable[[int], Awaitable[None]]


def decoded_soon(call: Call, content: memoryview) -> Message | None:
    """Decode ``content`` here, or give up: None if it takes long."""
    if not call.codec.at_once(content):
        return None
    try:
        return call.decoded(content, perf_counter() + regimes.AT_ONCE_SECONDS)
    except TakesLong:
        return None


async def computed_in_lanes(
    call: Call, grow: Grow, content: memoryview, message: Message | None
) -> Arrays:
    """Compute the outputs of ``content``, which is decoded here if ``message`` is None."""
    decoded_bytes = partial(_decoded_bytes, call, content)
    if message is None:
        await grow(await _transcoded(call, decoded_bytes))
        # The thread itself gives up then, too.
        until = perf_counter() + call.service.settings.compute_seconds
        message = await _transcoded(call, partial(call.decoded, content, until))
    else:
        await grow(decoded_bytes())
    return await _computed(call, grow, await _checked(call, grow, message))


async def computed_early(
    call: Call, grow: Grow, head: Head, body: Body, receive: Receive, step: int | None = None
) -> Arrays:
    """Compute the outputs of ``body`` while its logits come; ``step``: bytes of them at a time."""
    await body.at_least(head.logits_at)
    whole = asyncio.Event()
    work = _computed_early(call, grow, head, body, whole, step)
    return await while_connected(_rest_then_gone(call, body, whole, receive), work)


async def _computed_early(
    call: Call, grow: Grow, head: Head, body: Body, whole: asyncio.Event, step: int | None
) -> Arrays:
    call.entry[DECODING] = perf_counter_ns()
    await grow(_decoded_bytes(call, body.memory))
    message = head.placed(body.memory)
    if not message.tensors[call.operation.needs[0]].flags.aligned:
        await whole.wait()  # they are copied before any is computed with
    work = await _checked(call, grow, message, step)
    outputs = await _computed(call, grow, work, body, head.logits_at)
    await whole.wait()
    return outputs


async def _checked(call: Call, grow: Grow, message: Message, step: int | None = None) -> Work:
    needed = call.converted_bytes(message)
    if needed <= regimes.AT_ONCE_BYTES:
        work = call.work(message, step)
    else:
        await grow(needed)
        work = await _transcoded(call, partial(call.work, message, step))
    call.entry[DECODED] = perf_counter_ns()
    return work


async def _computed(
    call: Call, grow: Grow, work: Work, source: Source | None = None, logits_at: int = 0
) -> Arrays:
    await call.service.compiler.compiled(work.uncompiled)
    await grow(work.result_bytes)
    work = work._replace(steps=_timed(call.entry, work.steps))
    if work.quick and source is None:
        return work.run()
    return await call.service.compute.run(work, source, logits_at)


def _timed(times: list[int], steps: Steps) -> Steps:
    """Note when the first of ``steps`` begins, and when the last one ends."""
    times[COMPUTING] = perf_counter_ns()
    outputs = yield from steps
    times[COMPUTED] = perf_counter_ns()
    return outputs


async def encoded(call: Call, lease: Lease, outputs: Arrays, receive: Receive) -> Answer:
    """Encode ``outputs``, which are all that ``lease`` counts from here on."""
    size = sum([array.nbytes for array in outputs.values()])
    if size > regimes.AT_ONCE_BYTES:
        lease.shrink(size)
        needed = call.encoded_bytes(outputs)
        if needed > regimes.AT_ONCE_BYTES:
            work = _encoded_in_lane(call, lease, outputs, needed)
            return await while_connected(client_gone(receive), work)
    return call.encoded(outputs)


async def _encoded_in_lane(call: Call, lease: Lease, outputs: Arrays, needed: int) -> Answer:
    await lease.grow(needed)
    return await _transcoded(call, partial(call.encoded, outputs))


def _decoded_bytes(call: Call, content: memoryview) -> int:
    most = 2 * call.service.settings.max_decoded_bytes  # some is read twice
    return min(call.codec.decoded_bytes(content), most)


async def _transcoded(call: Call, function: Callable[[], T]) -> T:
    """Call ``function`` in the lane for such; raises ``Expired`` if that takes too long."""
    seconds = call.service.settings.compute_seconds
    try:
        return await call.service.transcode.call(function, seconds)
    except TakesLong:
        raise Expired(f"this has not been decoded within {seconds:g} s") from None


async def client_gone(receive: Receive) -> None:
    """Wait until the client is gone, and raise ``Disconnected``."""
    while (await receive())["type"] != "http.disconnect":
        pass
    raise Disconnected


async def _rest_then_gone(call: Call, body: Body, whole: asyncio.Event, receive: Receive) -> None:
    await body.all()
    call.entry[RECEIVED] = perf_counter_ns()
    whole.set()
    del body
    await client_gone(receive)


async def while_connected(watch: Coroutine[Any, Any, None], work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, but cancel it and raise what ``watch`` raises where that is first."""
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(watch)
            result = await work
            watcher.cancel()
            return result
    except BaseExceptionGroup as errors:
        raised = _freed(errors)
    # What is raised has a traceback to here, and would have the group as its context.
    del watcher
    raise raised.pop(0)


def _freed(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Clear the frames that ``group`` came through, and return the errors that it is of.

    asyncio's own keeps the group, and futures keep what they raised: circles, in which a failed
    request's body would outlive its lease until the next collection.
    """
    for error in (group, *group.exceptions):
        clear_frames(error.__traceback__)
    return list(group.exceptions)
