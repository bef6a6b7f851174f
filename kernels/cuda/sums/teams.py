"""Merging of several threads' sums: of neighbouring lanes, and of all warps of a block."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from numba import cuda, types

from kernels.cuda.kinds import SIMULATED, Kind, target
from kernels.cuda.sums.thread import Sums, functions

WARP = target.WARP
device, swapped = target.device, target.swapped
# Warps of the largest block; fields of ``Sums`` that are real, and whole.
_WARPS, _REALS, _WHOLES = 32, 12, 2


class Teams(NamedTuple):
    """Device functions that merge sums.

    ``of_lanes(sums, lanes)`` gives each of ``lanes`` neighbours, at most a warp, the sums of all of
    them; ``of_block(sums, everyone)`` gives thread 0, or ``everyone``, those of the block.
    """

    of_lanes: Any
    of_block: Any


@lru_cache
def teams(kind: Kind) -> Teams:
    """``Teams`` for ``kind``."""
    of_lanes = _of_lanes(kind)
    return Teams(of_lanes, _of_block(kind, of_lanes))


def _of_lanes(kind: Kind) -> Any:
    merge, more = functions(kind).merge, kind.more
    smooth, soft = kind.smooth, kind.soft

    @device
    def other_lane(sums: Any, distance: int) -> Any:
        mass, mass_rest, smooth_, smooth_rest = sums[3], sums[4], sums[5], sums[6]
        surprise, surprise_rest, shares, least, best, best_at, before = (
            sums[7], sums[8], sums[9], sums[10], sums[11], sums[12], sums[13],
        )  # fmt: skip
        if soft:
            shares, least = swapped(shares, distance), swapped(least, distance)
        if smooth:
            mass, mass_rest = swapped(mass, distance), swapped(mass_rest, distance)
            smooth_, smooth_rest = swapped(smooth_, distance), swapped(smooth_rest, distance)
        if more:
            surprise = swapped(surprise, distance)
            surprise_rest = swapped(surprise_rest, distance)
            best, best_at = swapped(best, distance), swapped(best_at, distance)
            before = swapped(before, distance)
        return Sums(
            swapped(sums[0], distance), swapped(sums[1], distance), swapped(sums[2], distance),
            mass, mass_rest, smooth_, smooth_rest, surprise, surprise_rest, shares, least, best,
            best_at, before,
        )  # fmt: skip

    other = swapped if SIMULATED else other_lane

    @device
    def of_lanes(sums: Any, lanes: int) -> Any:
        distance = 1
        while distance < lanes:
            sums = merge(sums, other(sums, distance))
            distance *= 2
        return sums

    return of_lanes


@device
def put(sums: Any, reals: Any, wholes: Any, at: int) -> None:
    """Write ``sums`` to column ``at``; ``got`` reads them."""
    reals[0, at], reals[1, at], reals[2, at] = sums.shift, sums.total, sums.total_rest
    reals[3, at], reals[4, at] = sums.mass, sums.mass_rest
    reals[5, at], reals[6, at] = sums.smooth, sums.smooth_rest
    reals[7, at], reals[8, at] = sums.surprise, sums.surprise_rest
    reals[9, at], reals[10, at], reals[11, at] = sums.shares, sums.least, sums.best
    wholes[0, at], wholes[1, at] = sums.best_at, sums.before


@device
def got(reals: Any, wholes: Any, at: int) -> Any:
    return Sums(
        reals[0, at], reals[1, at], reals[2, at], reals[3, at], reals[4, at], reals[5, at],
        reals[6, at], reals[7, at], reals[8, at], reals[9, at], reals[10, at], reals[11, at],
        wholes[0, at], wholes[1, at],
    )  # fmt: skip


def _of_block(kind: Kind, of_lanes: Any) -> Any:
    merge, number, start = functions(kind).merge, kind.number, functions(kind).start

    @target.team
    def of_block(sums: Any, everyone: bool) -> Any:
        reals = cuda.shared.array((_REALS, _WARPS), number)
        wholes = cuda.shared.array((_WHOLES, _WARPS), types.int64)
        thread = cuda.threadIdx.x
        sums = of_lanes(sums, WARP)
        if thread % WARP == 0:
            put(sums, reals, wholes, thread // WARP)
        cuda.syncthreads()
        if everyone or thread == 0:
            sums = start()
            for warp in range(cuda.blockDim.x // WARP):
                sums = merge(sums, got(reals, wholes, warp))
        cuda.syncthreads()
        return sums

    return of_block
