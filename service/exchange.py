"""One request, from its headers to its answer: the one way that every route goes through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import numpy as np
from fastapi import Request, Response

from service import body, media, options
from service.codecs import Codec, Limits, Message, TooLarge
from service.codecs.json_text import written_size
from service.errors import Disconnected, MissingTensor, NotAcceptable, NotReady
from service.lane import Lane
from service.settings import Settings

T = TypeVar("T")
Arrays: TypeAlias = Mapping[str, np.ndarray[Any, Any]]

TENSORS = frozenset({"logits", "log_probs", "labels", "weight", "sample_weight"})

# The largest bodies, in bytes, that are decoded without a change of thread: each about a
# millisecond's work at most. One KiB of npz may inflate to a MiB.
_DECODE_INLINE = {"json": 2**18, "safetensors": 2**18, "npz": 2**10}
_ENCODE_INLINE = 2**16  # bytes of arrays: 16384 float32 numbers, some 200 KB of JSON


@dataclass(frozen=True, slots=True)
class Operation:
    """What one route computes.

    ``needs`` and ``takes`` name its tensors, those it must have and those it may; ``compute`` turns
    them and the options into named outputs, in the compute lane; ``limit`` picks from the settings
    how many elements the first tensor may have, where that is limited; ``encode`` replaces the
    codec's own, for answers that are more than a list of tensors.
    """

    path: str
    summary: str
    description: str
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    options: type[options.Options]
    compute: Callable[[Arrays, Any], Arrays]
    limit: Callable[[Settings], int] | None = None
    encode: Callable[[Codec, Arrays], bytes] | None = None


@dataclass(slots=True)
class Service:
    """What lives as long as the process: the settings, the two threads, and whether it is ready.

    ``compute`` runs every kernel; ``transcode`` decodes and encodes what would hold up the loop.
    """

    settings: Settings
    compute: Lane
    transcode: Lane
    ready: bool = False


async def answer(request: Request, operation: Operation) -> Response:
    """Serve one request of ``operation``; raises what ``service.errors`` has a row for."""
    service: Service = request.app.state.service
    if not service.ready:
        raise NotReady("the kernels are being compiled")
    headers, limit = request.headers, service.settings.max_body_bytes
    codec = media.of_request(headers.getlist("content-type"), headers.getlist("content-encoding"))
    reply, media_type = media.of_answer(headers.getlist("accept"), codec)
    query = options.from_query(operation.options, request.scope["query_string"])
    length = body.declared_length(headers.getlist("content-length"), limit)
    work = _content(
        service,
        operation,
        codec,
        reply,
        query,
        await body.receive(request.receive, codec, length, limit),
    )
    content = await _unless_gone(request.receive, work)
    return Response(content, media_type=media_type)


async def _content(
    service: Service,
    operation: Operation,
    codec: Codec,
    reply: Codec,
    query: Mapping[str, str],
    received: memoryview,
) -> bytes:
    limits = Limits(decoded_bytes=service.settings.max_decoded_bytes)
    decode = partial(codec.decode, received, TENSORS, limits)
    inline = len(received) <= _DECODE_INLINE[codec.name]
    message = decode() if inline else await service.transcode.run(decode)
    given = options.combine(operation.options, query, message.options, typed=codec.name == "json")
    _check_tensors(operation, message, service.settings)
    compute = partial(operation.compute, message.tensors, given)
    # Nothing but the computation holds the body now: it is given back before the answer is built.
    del decode, received, message
    outputs = await service.compute.run(compute)
    del compute
    _check_answer(reply, outputs, service.settings.max_json_answer_elements)
    encode = partial(operation.encode, reply) if operation.encode else reply.encode
    if sum(array.nbytes for array in outputs.values()) <= _ENCODE_INLINE:
        return encode(outputs)
    return await service.transcode.run(partial(encode, outputs))


def _check_tensors(operation: Operation, message: Message, settings: Settings) -> None:
    uses = ", ".join((*operation.needs, *(f"{name} (optional)" for name in operation.takes)))
    for name in operation.needs:
        if name not in message.tensors:
            raise MissingTensor(f"{name} is missing: {operation.path} takes {uses}", field=name)
    for name in message.tensors:
        if name not in operation.needs + operation.takes:
            raise MissingTensor(
                f"{operation.path} has no use for {name}: it takes {uses}", field=name
            )
    if operation.limit is not None:
        name, most = operation.needs[0], operation.limit(settings)
        size = message.tensors[name].size
        if size > most:
            raise TooLarge(
                f"{operation.path} takes {name} of at most {most:,} elements, not {size:,}",
                where=name,
            )


def _check_answer(reply: Codec, outputs: Arrays, limit: int) -> None:
    elements = sum(map(written_size, outputs.values()))
    if reply.name == "json" and elements > limit:
        raise NotAcceptable(
            f"the answer holds {elements:,} numbers, and JSON at most {limit:,}:"
            " name a binary format in Accept",
            field="accept",
        )


async def _unless_gone(receive: body.Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, but cancel it and raise ``Disconnected`` once the client is gone."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnection(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Disconnected
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnection(receive: body.Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
