"""Plans of bulk scoring: shards, opened once for their shapes, cut into numbered pieces of rows."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import orjson

from kernels import dtypes
from service.bulk.formats import fingerprint, opened
from service.bulk.shard import TensorSpec
from service.bulk.terms import Terms, failure_of, terms_of

# Positions of a piece, at most: some 60 bytes are kept of each while it is computed.
MOST_POSITIONS = 1 << 20
# Shards that are opened at a time: those in a bucket take tens of milliseconds each.
_OPENING = 16


class Failure(NamedTuple):
    """Rows [first, stop) of a shard that have no result, and why; both are None for all of it."""

    location: str
    first: int | None
    stop: int | None
    reason: str


class Source(NamedTuple):
    """A shard in a plan.

    ``each`` is the rows of a piece, ``span`` the positions of a row; ``position`` and ``piece`` are
    the numbers of its first position and piece, ``row`` that of its first row, in the corpus.
    """

    location: str
    fingerprint: str
    rows: int
    span: int
    each: int
    dtype: str
    bytes: int | None
    row: int
    position: int
    piece: int

    @property
    def pieces(self) -> int:
        return -(-self.rows // self.each)


class Piece(NamedTuple):
    """Rows [first, stop) of the shard number ``source``; ``position`` is that of its first one."""

    number: int
    source: int
    first: int
    stop: int
    position: int
    positions: int


class Job(NamedTuple):
    """What is computed of every piece: JSON, so that it travels as text.

    ``terms`` are the options of the loss or of the report; ``names`` those of the tensors in the
    shards where they differ from ours; ``worst`` is how many of the worst positions are kept.
    """

    terms: Mapping[str, Any]
    names: Mapping[str, str]
    worst: int
    report: bool = False
    per_element: str | None = None
    per_element_format: str | None = None


class Plan:
    """Shards in order, and their pieces, which are numbered through all of them."""

    def __init__(
        self, job: Job, sources: Sequence[Source], failures: Sequence[Failure], classes: int
    ) -> None:
        self.job = job
        self.sources = list(sources)
        self.failures = list(failures)
        self.classes = classes
        self._firsts = [source.piece for source in self.sources]
        self._job = orjson.dumps(job._asdict())

    @property
    def pieces(self) -> int:
        return self.sources[-1].piece + self.sources[-1].pieces if self.sources else 0

    @property
    def rows(self) -> int:
        return self.sources[-1].row + self.sources[-1].rows if self.sources else 0

    @property
    def dtype(self) -> Any:
        """Dtype of the loss: the widest of the shards' results."""
        names = {source.dtype for source in self.sources}
        return np.result_type(np.float32, *(dtypes.BY_NAME[name].result for name in names))

    def source_of(self, piece: int) -> int:
        return bisect_right(self._firsts, piece) - 1

    def piece(self, number: int) -> Piece:
        index = self.source_of(number)
        source = self.sources[index]
        first = (number - source.piece) * source.each
        stop = min(first + source.each, source.rows)
        position = source.position + first * source.span
        return Piece(number, index, first, stop, position, (stop - first) * source.span)

    def task(self, number: int) -> bytes:
        """JSON of all that a worker needs to know of a piece."""
        piece = self.piece(number)
        source = self.sources[piece.source]
        own = {
            "location": source.location, "fingerprint": source.fingerprint,
            "first": piece.first, "stop": piece.stop, "position": piece.position,
        }  # fmt: skip
        return b'{"job":' + self._job + b',"piece":' + orjson.dumps(own) + b"}"

    def place(self, position: int) -> tuple[Source, int, int]:
        """Shard of a position of the corpus, its row there, and the position within the row."""
        firsts = [source.position for source in self.sources]
        source = self.sources[bisect_right(firsts, position) - 1]
        return source, *divmod(position - source.position, source.span)

    def digest(self) -> str:
        """Hash of the job and of how the shards are cut; not of their fingerprints."""
        digest = hashlib.sha256(self._job)
        for source in self.sources:
            digest.update(orjson.dumps(source._replace(fingerprint="")))
        return digest.hexdigest()


class _Looked(NamedTuple):
    """What is known of a shard once it was opened, and closed again."""

    fingerprint: str
    rows: int
    tensors: Mapping[str, TensorSpec]
    options: Mapping[str, object]


def _look(location: str, names: Mapping[str, str]) -> _Looked | str:
    try:
        before = fingerprint(location)
        shard = opened(location, names)
        try:
            return _Looked(before, shard.rows, dict(shard.tensors), dict(shard.options))
        finally:
            shard.close()
    except Exception as error:  # a shard may fail in as many ways as its format's library has
        return failure_of(error, location)


def planned(
    locations: Iterable[str],
    job: Job,
    query: Mapping[str, str],
    piece_bytes: int,
    told: Callable[[int], object] = lambda opened: None,
) -> Plan:
    """Open all shards, and cut them into pieces of about ``piece_bytes`` of logits, no row cut.

    ``query`` are options as texts; those that a shard's metadata gives count as well, and must be
    alike in all. A shard that cannot be opened, or is unlike the first that can, is a ``Failure``.
    ``told`` is called with the number of shards opened. Raises ``InvalidOption`` and
    ``InvalidInput`` for options that no shard could have.
    """
    locations = list(locations)
    sources: list[Source] = []
    failures: list[Failure] = []
    first: Terms | None = None
    row = position = piece = 0
    with ThreadPoolExecutor(_OPENING) as pool:
        looks = pool.map(lambda location: _look(location, job.names), locations)
        for number, (location, look) in enumerate(zip(locations, looks, strict=True), 1):
            told(number)
            found = (
                look
                if isinstance(look, str)
                else terms_of(location, look, query, job.report, first)
            )
            if isinstance(look, str) or isinstance(found, str):
                failures.append(Failure(location, None, None, str(found)))
                continue
            first = first or found
            each = _rows_each(found, look.rows, piece_bytes)
            source = Source(
                location, look.fingerprint, look.rows, found.span, each, found.dtype, found.bytes,
                row, position, piece,
            )  # fmt: skip
            sources.append(source)
            row, position, piece = (
                row + source.rows, position + source.rows * source.span, piece + source.pieces,
            )  # fmt: skip
    if first is not None:
        job = job._replace(terms=first.options)
    return Plan(job, sources, failures, first.classes if first else 0)


def _rows_each(terms: Terms, rows: int, piece_bytes: int) -> int:
    if terms.whole:
        return max(rows, 1)
    by_bytes = piece_bytes // max(terms.row_bytes, 1)
    return max(1, min(by_bytes, MOST_POSITIONS // max(terms.span, 1), max(rows, 1)))
