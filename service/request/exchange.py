"""One request, from its headers to its answer: the one way that every route goes through."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from fastapi import Request, Response

from service import options
from service.codecs import Codec
from service.errors import NotReady
from service.memory.budget import Budget, Lease
from service.memory.flow import Flow
from service.request import body, media, streaming
from service.request.body import Incoming
from service.request.computation import Computation
from service.request.operation import Asked, Operation, Service
from service.request.reply import Reply, size_of
from service.request.streaming import Head

# Bytes that a body of unknown length claims at least, and of a large budget most: so much one of
# them always has to itself, and the others go on in the rest.
_UNKNOWN = 2**28

_NEGOTIATED = (b"content-type", b"content-encoding", b"accept")


async def answer(request: Request, operation: Operation) -> Response:
    """Serve one request of ``operation``; raises what ``service.errors`` has a row for."""
    named = tuple([field for field in request.scope["headers"] if field[0] in _NEGOTIATED])
    codec, reply, media_type = formats(named)
    query = options.from_query(operation.options, request.scope["query_string"])
    return await respond(request, operation, codec, reply, media_type, query)


# Clients send the same few headers again and again.
@lru_cache(256)
def formats(fields: tuple[tuple[bytes, bytes], ...]) -> tuple[Codec, Codec, str]:
    """The codecs of the body and of the answer, and the answer's media type.

    From the header's ``fields`` Content-Type, Content-Encoding and Accept; raises as
    ``service.request.media``.
    """
    types, encodings, accepts = (media.values(fields, name) for name in _NEGOTIATED)
    codec = media.of_request(types, encodings)
    return codec, *media.of_answer(accepts, codec)


async def respond(
    request: Request,
    operation: Operation,
    codec: Codec,
    reply: Codec,
    media_type: str,
    query: Mapping[str, str],
) -> Response:
    """Serve one request in formats that are known: ``query`` holds options from outside the body.

    What the request holds is leased before it is taken, until its answer is sent or it has failed.
    Raises what ``service.errors`` has a row for.
    """
    service: Service = request.app.state.service
    if not service.ready:
        raise NotReady(service.why_not_ready)
    limit = service.settings.max_body_bytes
    scope = request.scope
    length = body.declared_length(media.values(scope["headers"], b"content-length"), limit)
    landing = scope.get("extensions", {}).get("lossd.landing")
    asked = Asked(service, operation, codec, reply, query)
    with Flow(request.receive, landing, length, service.budget.flows) as flow:
        lease, incoming, head = await _received(asked, flow, length, limit)
        try:
            work = Computation(asked, lease, incoming, head)
            del incoming, head
            content = await work.content(flow.receive)
            await lease.resize(size_of(content))
        except BaseException:
            lease.release()
            raise
    return Reply(content, media_type, lease)


async def _received(
    asked: Asked, flow: Flow, length: int | None, limit: int
) -> tuple[Lease, Incoming, Head | None]:
    """As ``streaming.received``, for a body of any length, or of one that is not known."""
    if length is not None and length >= streaming.LEAST:
        return await streaming.received(asked, flow, length, limit)
    codec, budget = asked.codec, asked.service.budget
    flow.lease = lease = await budget.lease(length or 0, claim=(length or 0) * codec.growth)
    lease.unknown = _claim_unknown(budget, codec)
    try:
        incoming = await body.start(flow.receive, flow.landing, codec, length, limit, lease)
        return lease, incoming, None
    except BaseException:
        lease.release()
        raise


def _claim_unknown(budget: Budget, codec: Codec) -> int:
    most = budget.most()
    return max(most - most // (2 * codec.growth), min(most, _UNKNOWN))
