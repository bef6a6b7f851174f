"""Sizes of pieces, and the rows at which shards are cut."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

# Bytes of logits of a piece, where none are asked for. At most: a piece takes 0.7 ms besides what
# its bytes take, a fifth of the time of 64 MiB in warm files, and a worker's memory is 300 MB and a
# piece. Of those that are sent to a server, which take the network longer than that, and are sent
# again where it fails. At least, where workers are many.
LARGEST, SENT, SMALLEST = 1 << 28, 1 << 26, 1 << 24
# Pieces that there are for each worker, at least, of those above ``SMALLEST``.
EACH = 4
# Positions of a piece, at most: some 80 bytes are kept of each while it is computed.
MOST_POSITIONS = 1 << 20
# Pieces, at most, that a piece may be as long as to begin and end where reading does.
_STRETCH = 2


class Size(NamedTuple):
    """Bytes of logits of a piece, and of one that is stretched to end where reading does."""

    bytes: int
    stretched: int


def exactly(piece_bytes: int) -> Size:
    """Size of pieces of ``piece_bytes``."""
    return Size(piece_bytes, _STRETCH * piece_bytes)


def shared(total: int, workers: int, largest: int = LARGEST) -> Size:
    """Size of large pieces, of which each of ``workers`` has some of ``total`` bytes of logits.

    Smaller pieces may be stretched as far as the ``largest``: what is compressed as a whole is read
    from its beginning for each.
    """
    each = -(-total // max(EACH * workers, 1))
    return Size(min(largest, max(SMALLEST, each)), _STRETCH * largest)


def rows_of(size: Size, rows: int, row_bytes: int, span: int) -> tuple[int, int]:
    """Rows of a shard's pieces, nearly alike, and those of a stretched one.

    The shard has ``rows`` of ``row_bytes`` and of ``span`` positions each.
    """
    rows, row_bytes = max(rows, 1), max(row_bytes, 1)
    most = MOST_POSITIONS // max(span, 1)
    each = max(1, min(size.bytes // row_bytes, most, rows))
    pieces = -(-rows // each)
    return -(-rows // pieces), max(1, min(size.stretched // row_bytes, _STRETCH * most))


def cuts(starts: Sequence[int], each: int, longest: int, rows: int) -> tuple[int, ...]:
    """First rows of pieces of about ``each`` rows that begin at ``starts`` where they can.

    Where the next start is too far for that, but not further than ``longest``, the piece is longer:
    to read from the middle of what is compressed as a whole costs more than memory.
    """
    if not starts or not rows:
        return ()
    ends = [*starts[1:], rows]
    found, at = [], 0
    while at < rows:
        found.append(at)
        place = bisect_right(ends, at + each) - 1
        if place >= 0 and ends[place] > at:
            at = ends[place]
            continue
        later = ends[place + 1]
        at = later if later <= at + longest else at + each
    return tuple(found)
