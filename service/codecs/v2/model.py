"""Model and shared memory, as the V2 codec sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from service.codecs.base import Array
from service.codecs.v2.request import Region


class SharedMemory(Protocol):
    """Shared memory regions of clients, in use by one request."""

    def view(self, region: Region) -> Array:
        """Return the region's bytes, uint8 and writable; raises if it is missing or too short."""

    def check_apart(self, read: Mapping[str, Region], written: Mapping[str, Region]) -> None:
        """Raise if two viewed regions overlap, one of which is ``written``."""

    def check(self) -> None:
        """Raise if memory of a viewed region was lost meanwhile."""


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity
class Model:
    """Model: an operation under V2.

    ``outputs``: names of all it has; ``chooses``: an option chooses among them, otherwise all are
    answered. ``largest``: name of the input that is to lie aligned.
    """

    name: str
    version: str
    largest: str
    outputs: tuple[str, ...]
    chooses: bool
