"""Interface of shards: files of logits and labels, read by rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from service.codecs.base import Array

# Tensors of a shard. The first axis of all but ``weight``, which has one value a class, is rows.
TENSORS = ("logits", "labels", "weight", "sample_weight", "mask", "segments")


class TensorSpec(NamedTuple):
    """Dtype of a tensor, a name of ``kernels.dtypes`` (or "bool"), and its shape, rows first."""

    dtype: str
    shape: tuple[int, ...]


class Shard(Protocol):
    """An open shard.

    ``rows`` is the length of the first axis, alike in all ``tensors`` but ``weight``; ``options``
    are those that its metadata gives, not validated, as ``service.codecs.Message.options``.
    ``starts`` are the rows at which reading starts cheaply, from 0 on, ascending: those of row
    groups or chunks; empty where any row is as good.
    """

    @property
    def rows(self) -> int: ...

    @property
    def tensors(self) -> Mapping[str, TensorSpec]: ...

    @property
    def options(self) -> Mapping[str, object]: ...

    @property
    def starts(self) -> Sequence[int]: ...

    def read(self, first: int, stop: int) -> Mapping[str, Array]:
        """Rows [first, stop) of all tensors, and ``weight`` as it is.

        Views of mapped memory where the format allows, whose pages are given back when the arrays
        are dropped: map the range anew for each call, or a worker's resident memory grows with
        the file. Raises ``DecodeError`` or ``InvalidInput``, which name the file, the tensor, and
        the row where known, for what is truncated, corrupt or gone.
        """
        ...

    def close(self) -> None:
        """Close the file; arrays that were read stay valid."""
        ...
