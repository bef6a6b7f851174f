"""Plans of bulk scoring: shards, opened once for their shapes, cut into numbered pieces of rows."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from kernels import dtypes
from service.bulk.cuts import Size, cuts, exactly, rows_of
from service.bulk.formats import fingerprint, opened
from service.bulk.shard import TensorSpec
from service.bulk.terms import Terms, failure_of, model_of, terms_of
from service.errors import InvalidOption
from service.request.given import combine

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

    ``tail`` is the labels' shape behind the rows, ``span`` the positions of a row, ``row_bytes``
    the bytes of its logits. Pieces have ``each``
    rows, or begin at the rows ``cuts``, if there are any. ``position`` and ``piece`` are the
    numbers of its first position and piece, ``row`` that of its first row, in the corpus.
    ``bytes`` is the option of its metadata.
    """

    location: str
    fingerprint: str
    rows: int
    tail: tuple[int, ...]
    row_bytes: int
    each: int
    cuts: tuple[int, ...]
    dtype: str
    bytes: int | None
    row: int
    position: int
    piece: int

    @property
    def span(self) -> int:
        return math.prod(self.tail)

    @property
    def pieces(self) -> int:
        return len(self.cuts) or -(-self.rows // self.each)

    def span_of(self, piece: int) -> tuple[int, int]:
        """First row, and the one after the last, of the shard's piece number ``piece``."""
        if self.cuts:
            return self.cuts[piece], (*self.cuts, self.rows)[piece + 1]
        return piece * self.each, min((piece + 1) * self.each, self.rows)


class Piece(NamedTuple):
    """Rows [first, stop) of the shard number ``source``; ``position`` is that of its first one."""

    number: int
    source: int
    first: int
    stop: int
    position: int
    positions: int


class Job(NamedTuple):
    """Work on every piece, alike for all: JSON, so that it travels as text.

    ``terms`` are the options of the loss or of the report; ``names`` those of the tensors in the
    shards where they differ from ours; ``worst`` is how many of the worst positions are kept;
    ``per_element`` is the folder of results by element.
    """

    terms: Mapping[str, Any]
    names: Mapping[str, str]
    worst: int
    report: bool = False
    per_element: str | None = None


class Plan:
    """Shards in order, and their pieces, which are numbered through all of them.

    ``terms`` are those of the first shard; ``bytes`` is the option, for all shards. ``places``
    says of each shard where its results by element are written, if they are.
    """

    def __init__(
        self,
        job: Job,
        sources: Sequence[Source],
        failures: Sequence[Failure] = (),
        size: Size | None = None,
        terms: Terms | None = None,
        bytes: int | None = None,
    ) -> None:
        self.job = job
        self.sources = list(sources)
        self.failures = list(failures)
        self.size = size
        self.terms = terms
        self.bytes = bytes
        self.places: Mapping[str, Path] = {}
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
        first, stop = source.span_of(number - source.piece)
        position = source.position + first * source.span
        return Piece(number, index, first, stop, position, (stop - first) * source.span)

    def bytes_of(self, number: int) -> int:
        """Bytes of logits of a piece."""
        piece = self.piece(number)
        return (piece.stop - piece.first) * self.sources[piece.source].row_bytes

    def task(self, number: int) -> bytes:
        """JSON of all that a worker needs to know of a piece."""
        piece = self.piece(number)
        source = self.sources[piece.source]
        place = self.places.get(source.location)
        own = {
            "location": source.location, "fingerprint": source.fingerprint,
            "first": piece.first, "stop": piece.stop, "position": piece.position,
            "place": None if place is None else str(place),
        }  # fmt: skip
        return b'{"job":' + self._job + b',"piece":' + orjson.dumps(own) + b"}"

    def samples(self) -> list[bytes]:
        """Tasks of one piece for each dtype of logits: kernels are compiled for these."""
        firsts = {source.dtype: source.piece for source in self.sources if source.rows}
        return [self.task(number) for number in firsts.values()]

    def source_at_position(self, position: int) -> Source:
        """Shard of a position of the corpus."""
        return self.sources[bisect_right(self.sources, position, key=_position) - 1]

    def source_at_row(self, row: int) -> Source:
        """Shard of a row of the corpus."""
        return self.sources[bisect_right(self.sources, row, key=_row) - 1]


_position, _row = attrgetter("position"), attrgetter("row")


class _Looked(NamedTuple):
    """Properties of a shard, known once it was opened and closed again."""

    fingerprint: str
    rows: int
    tensors: Mapping[str, TensorSpec]
    options: Mapping[str, object]
    starts: tuple[int, ...]


def _look(location: str, names: Mapping[str, str]) -> _Looked | str:
    """Open a shard for its shapes; returns why it cannot be opened, where it cannot."""
    try:
        before = fingerprint(location, names)
        shard = opened(location, names)
        try:
            return _Looked(
                before, shard.rows, dict(shard.tensors), dict(shard.options), tuple(shard.starts)
            )
        finally:
            shard.close()
    except InvalidOption:  # a package is missing: no fault of this shard alone
        raise
    except Exception as error:  # a shard may fail in as many ways as its format's library has
        return failure_of(error, location)


def planned(
    locations: Iterable[str],
    job: Job,
    query: Mapping[str, str],
    size: int | Callable[[int], Size],
    told: Callable[[int], object] = lambda opened: None,
) -> Plan:
    """Open all shards, and cut them into pieces of about ``size``, no row cut.

    ``size`` is bytes of logits, or tells the size by those of all shards. ``query`` are options as
    texts; those that a shard's metadata gives count as well, and must be alike in all. A shard that
    cannot be opened, or is unlike the first that can, is a ``Failure``. ``told`` is called with the
    number of shards opened. Raises ``InvalidOption`` for options that no shard could have, and
    where a package is missing.
    """
    asked = combine(model_of(job.report), query, {}, typed=False)
    locations = list(locations)
    alike: list[tuple[str, _Looked, Terms]] = []
    failures: list[Failure] = []
    first: Terms | None = None
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
            alike.append((location, look, found))
    total = sum(look.rows * terms.row_bytes for _, look, terms in alike)
    chosen = exactly(size) if isinstance(size, int) else size(total)
    sources: list[Source] = []
    for location, look, terms in alike:
        sources.append(_source(location, look, terms, chosen, sources[-1:]))
    if first is not None:
        job = job._replace(terms=first.options)
    text_bytes = getattr(asked, "bytes", None)
    texts = [source.bytes for source in sources]
    if text_bytes is None and texts and None not in texts:
        text_bytes = sum(texts)  # type: ignore[arg-type]
    return Plan(job, sources, failures, chosen, first, text_bytes)


def _source(
    location: str, look: _Looked, terms: Terms, size: Size, before: Sequence[Source]
) -> Source:
    """Shard after the one ``before`` it, if there is one."""
    each, longest = rows_of(size, look.rows, terms.row_bytes, terms.span)
    if terms.whole:
        each = longest = max(look.rows, 1)
    row = position = piece = 0
    for last in before:
        row, piece = last.row + last.rows, last.piece + last.pieces
        position = last.position + last.rows * last.span
    return Source(
        location, look.fingerprint, look.rows, terms.tail, terms.row_bytes, each,
        cuts(look.starts, each, longest, look.rows), terms.dtype, terms.bytes, row, position, piece,
    )  # fmt: skip
