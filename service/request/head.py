"""Heads: the beginning of a body that says where all of its tensors lie, before they have come."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from service.codecs import Message
from service.codecs.base import Arrays
from service.request.operation import Call, Operation, converted_bytes


class Place(NamedTuple):
    """Place of a tensor in a body: ``offset`` and ``strides`` are in bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    strides: tuple[int, ...]


class Head(NamedTuple):
    """Message of a body of which everything up to byte ``logits_at`` and the logits are to come.

    ``message`` has the tensors that are elsewhere; ``places`` says where the others lie.
    """

    logits_at: int
    message: Message
    places: dict[str, Place]

    def placed(self, body: memoryview) -> Message:
        """Have the tensors lie in ``body``."""
        lying = {
            name: np.ndarray(place.shape, place.dtype, body, place.offset, place.strides)
            for name, place in self.places.items()
        }
        return self.message._replace(tensors={**self.message.tensors, **lying})


def decoded_head(call: Call, body: memoryview, filled: int) -> Head | None:
    """Decode the first ``filled`` bytes of ``body``; None unless they are a head.

    No codec decodes a body twice. Raises what is wrong with what the head says.
    """
    prefix = body[:filled]
    logits_at = call.codec.ready_at(prefix)
    if logits_at is None or not call.codec.at_once(prefix):
        return None
    message = call.decoded(body)
    origin = np.frombuffer(body, np.uint8).ctypes.data
    places = {}
    for name, array in message.tensors.items():
        offset = array.ctypes.data - origin
        if 0 <= offset < len(body):
            places[name] = Place(array.shape, array.dtype, offset, array.strides)
    last = max(places, key=lambda name: places[name].offset, default="")
    if not _in_step(call.operation, message.tensors, last):
        return None
    elsewhere = {name: array for name, array in message.tensors.items() if name not in places}
    return Head(logits_at, message._replace(tensors=elsewhere), places)


def _in_step(operation: Operation, tensors: Arrays, last: str) -> bool:
    """Test that the ``last`` tensor of a body is read as the logits are, byte for byte."""
    logits = operation.needs[0]
    if last not in operation.sized:
        return last == logits
    both = {logits: tensors[logits], last: tensors[last]}
    same = tensors[last].nbytes == tensors[logits].nbytes
    return same and not converted_bytes(operation, both)
