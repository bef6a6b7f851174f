"""A V2 codec's view of the service: the model that is asked, and its clients' shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from service.codecs.v2.request import Region

_Array: TypeAlias = np.ndarray[Any, Any]


class SharedMemory(Protocol):
    """The client's regions, as one request sees them."""

    def view(self, region: Region) -> _Array:
        """Its bytes, writable; raises where there is no such region, or not so much of it."""

    def check_apart(self, read: Mapping[str, Region], written: Mapping[str, Region]) -> None:
        """Raise where two that were viewed overlap, one of which is ``written``."""

    def check(self) -> None:
        """Raise if anything viewed was not there all the time."""


@dataclass(frozen=True, slots=True, eq=False)  # each is the only one of its kind
class Model:
    """What a model is called, and has.

    ``outputs``: those it can answer with. ``chooses``: it has an option that names those it does;
    otherwise it answers with all. ``largest``: the input that should lie aligned.
    """

    name: str
    version: str
    largest: str
    outputs: tuple[str, ...]
    chooses: bool
