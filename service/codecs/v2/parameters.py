"""Parameters of a V2 request and of its tensors: those that are read, and those passed over.

A request's parameters are options, so unknown ones are refused, on tensors too; but parameters that
clients send to other servers are passed over. Null is no parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.codecs.base import shown
from service.errors import DecodeError

# Parameters for other servers: Triton's for queues and sequences of requests, and MLServer's and
# KServe's for decoding a tensor and passing on a request's headers.
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
LARGEST = 2**63 - 1  # integer that the protocol's offsets, sizes and extents may be
# Parameters of inputs and outputs alike: clients send those of one with the other.
_OF_TENSORS = (
    "binary_data",
    "binary_data_size",
    "classification",
    "shared_memory_region",
    "shared_memory_offset",
    "shared_memory_byte_size",
)


def known_parameters(entry: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the parameters of ``entry``, a request or a tensor of it, without foreign ones."""
    given = entry.get("parameters")
    return {
        name: value
        for name, value in ({} if given is None else as_object(given, what)).items()
        if name not in FOREIGN and not name.startswith(FOREIGN_PREFIX)
    }


def tensor_parameters(entry: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the parameters of an input or output; raises ``DecodeError`` for unknown ones."""
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
    """Return ``value``, which must be an object."""
    if not isinstance(value, dict):
        raise DecodeError(f"{what} must be an object", where=what)
    return value


def natural(value: Any, what: str, where: str) -> int:
    """Return ``value``, which must be an integer from 0 to ``LARGEST``."""
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise DecodeError(f"{what} must be an integer from 0 to 2**63 - 1", where=where)
    return value


def string(value: Any, name: str) -> str:
    """Return ``value``, which must be a string."""
    if not isinstance(value, str):
        raise DecodeError(f"{name} must be there, and a string", where=name)
    return value


def flag(value: Any, default: bool, name: str) -> bool:
    """Return ``value``, which must be true or false, or null for ``default``."""
    if value is None:
        return default
    if not isinstance(value, bool):
        raise DecodeError(f"{name} must be true or false", where=name)
    return value
