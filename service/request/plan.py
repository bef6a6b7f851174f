"""Plans: how a request is served, decided once from the length and the head of its body.

``service.regimes`` has the sizes that decide.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import NamedTuple, TypeAlias

from service import regimes
from service.codecs.base import Arrays
from service.memory import sliding
from service.memory.budget import Lease
from service.memory.pages import ALIGNMENT
from service.memory.sliding import Sliding, whole_pieces
from service.request.body import Reception
from service.request.head import Head, decoded_head
from service.request.operation import Call, converted_bytes
from service.request.sliding_body import SlidingBody
from service.request.stages import (
    client_gone,
    computed_early,
    computed_in_lanes,
    decoded_soon,
    while_connected,
)
from service.telemetry.entry import COMPUTED, COMPUTING, DECODED, DECODING, RECEIVED


class AtOnce(NamedTuple):
    """Small bodies, on the event loop; what proves to take longer goes on in the lanes.

    ``length`` is None where the body says none.
    """

    length: int | None

    async def lease(self, call: Call) -> Lease:
        budget, size = call.service.budget, self.length or 0
        lease = await budget.lease(size, claim=size * call.codec.growth)
        if self.length is None:
            # Claimed once the body proves to be a longer one.
            most = budget.most()
            share = most - most // (2 * call.codec.growth)
            lease.unknown = max(share, min(most, regimes.UNKNOWN_CLAIM_BYTES))
        return lease

    async def run(self, call: Call, lease: Lease, reception: Reception) -> Arrays:
        times = call.entry
        body = await reception.body(lease)
        content = await body.all()
        times[RECEIVED] = times[DECODING] = perf_counter_ns()
        message = decoded_soon(call, content)
        if (
            message is not None
            and message.tensors[call.operation.needs[0]].size <= regimes.AT_ONCE_LOGITS
            and converted_bytes(call.operation, message.tensors) <= regimes.AT_ONCE_BYTES
        ):
            work = call.work(message)
            if work.quick and work.result_bytes <= regimes.AT_ONCE_BYTES:
                times[DECODED] = times[COMPUTING] = perf_counter_ns()
                outputs = work.run()
                times[COMPUTED] = perf_counter_ns()
                return outputs
        work_in_lanes = computed_in_lanes(call, lease.grow, content, message)
        return await while_connected(client_gone(reception.receive), work_in_lanes)


class Whole(NamedTuple):
    """Bodies that are held whole, in the lanes; computed early where the logits come last."""

    length: int
    head: Head | None = None

    async def lease(self, call: Call) -> Lease:
        claim = self.length * call.codec.growth
        return await call.service.budget.lease(self.length, claim=claim)

    async def run(self, call: Call, lease: Lease, reception: Reception) -> Arrays:
        body = await reception.body(lease)
        head = self.head
        if head is None and body.filled < self.length >= regimes.EARLY_BODY_BYTES:
            head = decoded_head(call, body.memory, body.filled)
        if head is not None:
            return await computed_early(call, lease.grow, head, body, reception.receive)
        content = await body.all()
        call.entry[RECEIVED] = call.entry[DECODING] = perf_counter_ns()
        message = decoded_soon(call, content)
        outputs = computed_in_lanes(call, lease.grow, content, message)
        return await while_connected(client_gone(reception.receive), outputs)


class Streamed(NamedTuple):
    """Large bodies that are computed while they come, in memory that slides along them.

    ``held`` bytes are behind the body, the first ``kept`` of them for good; ``size`` is with what
    its tensors are converted to, and the results.
    """

    length: int
    head: Head
    kept: int
    held: int
    size: int

    async def lease(self, call: Call) -> Lease:
        """Lease all that the request takes before its answer."""
        return await call.service.budget.lease(self.size, self.held)

    async def run(self, call: Call, lease: Lease, reception: Reception) -> Arrays:
        memory = Sliding(ALIGNMENT + self.length)
        lease.behind(memory, self.kept, self.held)
        body = SlidingBody(reception, memory, self.length)
        step = regimes.STREAMED_STEP_BYTES
        return await computed_early(call, _leased, self.head, body, reception.receive, step)


Plan: TypeAlias = AtOnce | Whole | Streamed


def plan_of_length(length: int | None) -> Plan:
    """Plan for a body of ``length`` bytes (None: unknown) that is below STREAMED_BODY_BYTES."""
    if length is None or length <= regimes.AT_ONCE_BODY_BYTES:
        return AtOnce(length)
    return Whole(length)


def plan_of_head(call: Call, reception: Reception, length: int) -> Plan:
    """Plan for a large body whose beginning is there. Raises what is wrong with that."""
    if not sliding.available():
        return Whole(length)
    outline = reception.placed(Sliding(ALIGNMENT + length).bytes, length)
    head = decoded_head(call, outline, len(reception.prefix))
    if head is None:
        return Whole(length)
    message = head.placed(outline)
    footprint = call.footprint(message, regimes.STREAMED_STEP_BYTES)
    if footprint is None or footprint.window is None:
        return Whole(length, head)
    kept = whole_pieces(ALIGNMENT + max(head.logits_at, len(reception.prefix)))
    held = kept + whole_pieces(footprint.window + regimes.STREAMED_AHEAD_BYTES)
    if held > length * regimes.STREAMED_HELD_PERCENT // 100:
        return Whole(length, head)
    converted = call.converted_bytes(message)
    return Streamed(length, head, kept, held, held + footprint.result_bytes + converted)


async def _leased(size: int) -> None:
    """Lease nothing: all of it is leased already."""
