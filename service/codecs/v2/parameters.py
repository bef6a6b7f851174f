"""Parameters of a V2 request and of its tensors: which are ours, and which are passed over.

A request's parameters are options, so that what is unknown is refused, at every level; but clients
send some that mean something to other servers. Null is no parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.codecs.base import DecodeError, shown

# What clients send to other servers. Triton's are about queues and sequences of requests; those of
# MLServer and KServe say how a server is to decode a tensor, and carry a request's headers on.
FOREIGN = (
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "priority",
    "timeout",
    "headers",
    "content_type",
)
FOREIGN_PREFIX = "triton_"
# Of inputs and outputs alike: clients send with one what is meant for the other.
_OF_TENSORS = (
    "binary_data",
    "binary_data_size",
    "classification",
    "shared_memory_region",
    "shared_memory_offset",
    "shared_memory_byte_size",
)


def known_parameters(entry: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The parameters of ``entry``, a request or a tensor of it, but for those that are foreign."""
    given = entry.get("parameters")
    return {
        name: value
        for name, value in ({} if given is None else as_object(given, what)).items()
        if name not in FOREIGN and not name.startswith(FOREIGN_PREFIX)
    }


def tensor_parameters(entry: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The parameters of an input or output; raises ``DecodeError`` for one that it has not."""
    given = known_parameters(entry, f"{what}: parameters")
    for name in given:
        if name not in _OF_TENSORS:
            raise DecodeError(
                f"{what}: unknown parameter {shown(name)}: those of a tensor are "
                f"{', '.join(_OF_TENSORS)}; options are parameters of the request",
                where=what,
            )
    return {name: value for name, value in given.items() if value is not None}


def as_object(value: Any, what: str) -> dict[str, Any]:
    """``value``, which must be an object."""
    if not isinstance(value, dict):
        raise DecodeError(f"{what} must be an object", where=what)
    return value


def flag(value: Any, default: bool, name: str) -> bool:
    """``value``, which must be true or false, or null for ``default``."""
    if value is None:
        return default
    if not isinstance(value, bool):
        raise DecodeError(f"{name} must be true or false", where=name)
    return value
