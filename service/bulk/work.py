"""Work of a piece: rows are read, scored, and returned as the bytes of a partial.

``score_piece`` is the function that every executor calls, in whatever process. It is given names
of files, and no logits.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import orjson

from kernels import InvalidInput, mismatch, warm
from kernels.cache import folder
from kernels.compiled import one_process
from kernels.compiling import Told, compile_all
from kernels.devices import compute, uncompiled
from kernels.report import report_of
from kernels.report.compute import uncompiled as uncompiled_in_report
from kernels.specialisations import AnySpecialisation
from service.bulk import output
from service.bulk.formats import fingerprint, opened
from service.bulk.scores import Compute, outputs_of, scored
from service.bulk.shard import Shard
from service.bulk.terms import checked, failure_of
from service.codecs.base import Array

# Shards that a thread keeps open.
_OPEN = 8


class PieceError(Exception):
    """Piece that cannot be scored; its text says why. It travels between processes."""


class Given(NamedTuple):
    """Piece as a task names it: rows [first, stop) of a shard, and its first position.

    ``place`` is where its results by element are written, or None.
    """

    location: str
    fingerprint: str
    first: int
    stop: int
    position: int
    place: str | None = None


class Result(NamedTuple):
    """Result of a piece: the bytes of a partial, or those of a report."""

    partial: bytes
    report: bytes

    def to_bytes(self) -> bytes:
        return len(self.partial).to_bytes(8, "little") + self.partial + self.report

    @classmethod
    def from_bytes(cls, content: bytes) -> Result:
        stop = 8 + int.from_bytes(content[:8], "little")
        return cls(content[8:stop], content[stop:])


def score_piece(task: bytes, compute: Compute = compute, predicting: bool = False) -> bytes:
    """Score the piece that ``task`` (``Plan.task``) names; returns the bytes of a ``Result``.

    ``compute`` computes its outputs, all of them of ``PER_POSITION`` where ``predicting``. Raises
    ``PieceError``.
    """
    job, piece = read_task(task)
    try:
        with _shard(piece, job["names"]) as shard:
            tensors = shard.read(piece.first, piece.stop)
            return of_tensors(tensors, job, piece, compute, predicting)
    except PieceError:
        raise
    except Exception as error:  # whatever a format's library raises: not all of it can travel
        raise PieceError(reason(error, piece)) from None


def read_task(task: bytes) -> tuple[Mapping[str, Any], Given]:
    """Job and piece of a task."""
    said = orjson.loads(task)
    return said["job"], Given(**said["piece"])


def of_tensors(
    tensors: Mapping[str, Array],
    job: Mapping[str, Any],
    piece: Given,
    compute: Compute,
    predicting: bool,
) -> bytes:
    """Score rows that were read; returns the bytes of a ``Result``. Raises ``InvalidInput``."""
    if job["report"]:
        return Result(b"", report_of(**tensors, **job["terms"]).to_bytes()).to_bytes()
    predicting = predicting or piece.place is not None
    partial, elements = scored(
        tensors, job["terms"], piece.position, job["worst"], predicting, compute
    )
    if piece.place is not None:
        output.put(piece.place, piece.first, piece.stop, elements)
    return Result(partial.to_bytes(), b"").to_bytes()


def reason(error: Exception, piece: Given) -> str:
    """Reason of ``error``; an element that it names is at its place in the shard."""
    text = failure_of(error, piece.location)
    at = getattr(error, "position", None)
    if isinstance(error, InvalidInput) and at and error.field != "weight":
        there = mismatch.element(error.field, (at[0] + piece.first, *at[1:]))
        named = text.replace(mismatch.element(error.field, at), there)
        return named if named != text else f"{text} (row {at[0] + piece.first})"
    return text


class _Opened(threading.local):
    """Shards that this thread has open, the one used last at the end."""

    def __init__(self) -> None:
        self.shards: OrderedDict[tuple[str, str], Shard] = OrderedDict()


_opened = _Opened()


class _shard:  # noqa: N801 (a context manager, used as a function)
    """An open shard, which is checked to be the planned one before and after it is read."""

    def __init__(self, piece: Given, names: Mapping[str, str]) -> None:
        self._piece, self._names = piece, names

    def __enter__(self) -> Shard:
        piece, shards = self._piece, _opened.shards
        key = piece.location, piece.fingerprint
        shard = shards.pop(key, None)
        if shard is None:
            self._check()
            shard = opened(piece.location, self._names)
        elif "://" not in piece.location:
            self._check()
        shards[key] = shard
        while len(shards) > _OPEN:
            shards.popitem(last=False)[1].close()
        return shard

    def __exit__(self, kind: object, *_: object) -> None:
        piece = self._piece
        try:
            if kind is not None or "://" not in piece.location:
                self._check()
        except Exception:
            kind = PieceError
            raise
        finally:
            if kind is not None:
                shard = _opened.shards.pop((piece.location, piece.fingerprint), None)
                if shard is not None:
                    with suppress(Exception):
                        shard.close()

    def _check(self) -> None:
        now = fingerprint(self._piece.location, self._names)
        if now != self._piece.fingerprint:
            raise PieceError(f"changed since the plan: {self._piece.fingerprint} then, {now} now")


def prepare(tasks: Iterable[bytes], told: Told | None = None) -> None:
    """Compile the kernels that ``tasks`` need, or load them from the cache, once a machine.

    Processes that start later load them. A shard that cannot be opened is passed over: its pieces
    will say why.
    """
    needed: dict[AnySpecialisation, None] = {}
    for task in tasks:
        job, piece = read_task(task)
        with suppress(Exception), _shard(piece, job["names"]) as shard:
            problem = checked(shard.tensors, job["terms"], job["report"])
            needed |= dict.fromkeys(uncompiled(problem, outputs_of(problem, False)))
            if job["report"]:
                needed |= dict.fromkeys(uncompiled_in_report(problem))
    jobs = [warm.job(each) for each in needed]
    with one_process(folder(), "lock"):
        missing = [each for each in jobs if not each.load()]
        compile_all(missing, min(warm.CHILDREN, len(missing)), told)
