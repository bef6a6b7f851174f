"""Exchange: one request, from its headers to its answer, on the way that all routes take."""

from __future__ import annotations

from functools import lru_cache
from time import perf_counter_ns

from fastapi import Request, Response

from service import regimes
from service.codecs import Codec
from service.errors import NotReady
from service.memory.budget import Lease
from service.memory.upload import Upload
from service.request import media
from service.request.body import Reception, declared_length
from service.request.given import from_query
from service.request.operation import Call, Operation
from service.request.plan import Plan, plan_of_head, plan_of_length
from service.request.reply import Reply
from service.request.stages import encoded
from service.telemetry import record
from service.telemetry.entry import ENCODED, FORMAT, HEAD, LEASED, RECEIVED_BYTES, REPLY
from service.telemetry.layout import RECEIVED, SENT

_NEGOTIATED = (b"content-type", b"content-encoding", b"accept")


async def answer(request: Request, operation: Operation) -> Response:
    """Serve one request of ``operation``; raises what ``service.errors`` has a row for."""
    named = tuple([field for field in request.scope["headers"] if field[0] in _NEGOTIATED])
    codec, reply, media_type = formats(named)
    query = from_query(operation.options, request.scope["query_string"])
    entry = record.of(request.scope)
    answering = operation.answering(reply)
    call = Call(request.app.state.service, answering, codec, reply, query, entry)
    return await respond(request, call, media_type)


# Clients send the same few headers again and again.
@lru_cache(256)
def formats(fields: tuple[tuple[bytes, bytes], ...]) -> tuple[Codec, Codec, str]:
    """Negotiate the codecs of the body and of the answer, and the answer's media type.

    From the header's ``fields`` Content-Type, Content-Encoding and Accept; raises as
    ``service.request.media``.
    """
    types, encodings, accepts = (media.values(fields, name) for name in _NEGOTIATED)
    codec = media.of_request(types, encodings)
    return codec, *media.of_answer(accepts, codec)


async def respond(request: Request, call: Call, media_type: str) -> Response:
    """Serve ``call``, whose answer is of ``media_type``.

    What the request holds is leased before it is taken, until its answer is sent or it has failed.
    Raises what ``service.errors`` has a row for.
    """
    service, codec, entry = call.service, call.codec, call.entry
    entry[FORMAT], entry[REPLY] = RECEIVED[codec.name], SENT[call.reply.name]
    if not service.ready:
        raise NotReady(service.why_not_ready)
    scope = request.scope
    limit = service.settings.max_body_bytes
    length = declared_length(media.values(scope["headers"], b"content-length"), limit)
    landing = scope.get("extensions", {}).get("lossd.landing")
    with Upload(request.receive, landing, length, service.budget.uploads) as upload:
        reception = Reception(upload.receive, upload.landing, codec, length, limit)
        plan, lease = await _planned(call, upload, reception)
        entry[LEASED] = perf_counter_ns()
        try:
            outputs = await plan.run(call, lease, reception)
            answer = await encoded(call, lease, outputs, upload.receive)
            reply = Reply(answer, media_type, lease)
            await lease.resize(reply.size)
        except BaseException:
            lease.release()
            raise
        finally:
            entry[RECEIVED_BYTES] = upload.moved
            entry[ENCODED] = perf_counter_ns()
    return reply


async def _planned(call: Call, upload: Upload, reception: Reception) -> tuple[Plan, Lease]:
    length = reception.length
    if length is None or length < regimes.STREAMED_BODY_BYTES:
        plan = plan_of_length(length)
        lease = await plan.lease(call)
    else:
        # The head of a large body says how much of it has to be held.
        async with call.service.budget.opening(upload):
            began = perf_counter_ns()
            await reception.begin()
            call.entry[HEAD] = perf_counter_ns() - began
            plan = plan_of_head(call, reception, length)
            lease = await plan.lease(call)
    upload.lease = lease
    return plan, lease
