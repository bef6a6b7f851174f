"""Journal of a run: an SQLite database of finished pieces, from which a killed run goes on.

A piece is in it once, with its partial. Of shards that are finished from the first one on, only the
total is kept, and of reports only that of all pieces up to one; each is replaced in the transaction
that removes what it is made of. So whatever moment a run ends at, the journal has each finished
piece once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import orjson

from kernels import InvalidInput
from service.bulk.cuts import Size
from service.bulk.plan import Plan, Source

_FORMAT = "lossd journal 1"
_TABLES = """
CREATE TABLE said (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE shards (number INTEGER PRIMARY KEY, location TEXT NOT NULL, fingerprint TEXT NOT NULL,
    shape TEXT NOT NULL);
CREATE TABLE pieces (number INTEGER PRIMARY KEY, partial BLOB NOT NULL);
CREATE TABLE prefix (pieces INTEGER NOT NULL, total BLOB NOT NULL, report BLOB);
"""


# Seconds that a journal is waited for which another has open: a merge has one for less.
_PATIENCE = 5.0
# Names of a ``Size`` among those of the job.
_SIZE = ("piece_bytes", "stretched_bytes")


class Prefix(NamedTuple):
    """Pieces before number ``pieces``, all finished: bytes of their total, and of their report."""

    pieces: int
    total: bytes
    report: bytes | None


class Journal:
    """The journal in the file ``path``, begun for ``plan`` if it is new, or gone on with.

    Raises ``InvalidInput`` if it is another plan's, or none; ``sqlite3.Error`` and ``OSError`` if
    it cannot be written.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self.changed: list[Source] = []
        try:
            self._database = sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE)
        except sqlite3.Error as error:
            raise InvalidInput(f"{path}: {error}", field="journal") from None
        try:
            # Of a new file: partials of some KB lie in a page each, not in two that are read apart.
            self._database.execute("PRAGMA page_size = 16384")
            # One run at a time; the lock ends with the process, whatever ended it.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            # A crash of the machine may lose the last pieces, which are then computed again.
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._begin(plan)
        except BaseException as error:
            self._database.close()
            if not isinstance(error, sqlite3.Error):
                raise
            if "locked" in str(error):
                text = f"{path}: another run has this journal open"
            elif isinstance(error, sqlite3.OperationalError):
                text = f"{path}: {error}"
            else:
                text = f"{path} is no journal: {error}"
            raise InvalidInput(text, field="journal") from None

    def _begin(self, plan: Plan) -> None:
        run = self._database.execute
        run("BEGIN IMMEDIATE")
        names = {name for (name,) in run("SELECT name FROM sqlite_master")}
        if not names:
            for statement in _TABLES.split(";"):
                run(statement)
            said = {"format": _FORMAT, "job": _job(plan)}
            self._database.executemany("INSERT INTO said VALUES (?, ?)", said.items())
            self._database.executemany(
                "INSERT INTO shards VALUES (?, ?, ?, ?)",
                (
                    (number, source.location, source.fingerprint, _shape(source))
                    for number, source in enumerate(plan.sources)
                ),
            )
        else:
            self._check(plan, names)
        run("COMMIT")

    def _check(self, plan: Plan, names: set[str]) -> None:
        run = self._database.execute
        if "said" not in names:
            raise InvalidInput(f"{self.path} is no journal of lossd's", field="journal")
        said: Mapping[str, str] = dict(run("SELECT name, value FROM said").fetchall())
        if said.get("format") != _FORMAT:
            raise InvalidInput(
                f"{self.path} is a journal of another version of lossd", field="journal"
            )
        if said["job"] != _job(plan):
            raise self._other(_difference(said["job"], _job(plan)))
        known = run("SELECT location, fingerprint, shape FROM shards ORDER BY number").fetchall()
        if len(known) != len(plan.sources):
            raise self._other(
                f"it has {len(known):,} shards that can be read, and there are"
                f" {len(plan.sources):,} now"
            )
        for (location, fingerprint, shape), source in zip(known, plan.sources, strict=True):
            if (location, shape) != (source.location, _shape(source)):
                raise self._other(
                    f"it has {location} ({_words(shape)}) where there is {source.location}"
                    f" ({_words(_shape(source))}) now"
                )
            if fingerprint != source.fingerprint:
                self._renew(source, fingerprint, plan)

    def _renew(self, source: Source, before: str, plan: Plan) -> None:
        """Forget the pieces of a shard that changed since, unless they are in the total already."""
        prefix = self.prefix()
        if prefix is not None and source.piece < prefix.pieces and source.pieces:
            raise self._other(
                f"{source.location} changed since: {before} then, {source.fingerprint} now, and its"
                " losses are in the total already"
            )
        run = self._database.execute
        span = (source.piece, source.piece + source.pieces)
        run("DELETE FROM pieces WHERE number >= ? AND number < ?", span)
        run(
            "UPDATE shards SET fingerprint = ? WHERE number = ?",
            (source.fingerprint, plan.sources.index(source)),
        )
        self.changed.append(source)

    def _other(self, difference: str) -> InvalidInput:
        return InvalidInput(
            f"{self.path} is the journal of another run: {difference}. Give another file, or remove"
            " this one, to begin anew",
            field="journal",
        )

    def prefix(self) -> Prefix | None:
        """Pieces from the first one on that are kept as a total."""
        row = self._database.execute("SELECT pieces, total, report FROM prefix").fetchone()
        return None if row is None else Prefix(*row)

    def finished(self) -> list[int]:
        """Numbers of the finished pieces that are not in the prefix, ascending."""
        return [n for (n,) in self._database.execute("SELECT number FROM pieces ORDER BY number")]

    def partials(self, numbers: range) -> dict[int, bytes]:
        """Partials, by number, of the finished ``numbers`` that are not in the prefix."""
        select = "SELECT number, partial FROM pieces WHERE number >= ? AND number < ?"
        return dict(self._database.execute(select, (numbers.start, numbers.stop)).fetchall())

    def save(self, partials: Sequence[tuple[int, bytes]], prefix: Prefix | None = None) -> None:
        """Add finished pieces, and replace the prefix; both, or neither where this run ends."""
        run = self._database.execute
        run("BEGIN IMMEDIATE")
        self._database.executemany("INSERT OR REPLACE INTO pieces VALUES (?, ?)", partials)
        if prefix is not None:
            run("DELETE FROM prefix")
            run("INSERT INTO prefix VALUES (?, ?, ?)", prefix)
            run("DELETE FROM pieces WHERE number < ?", (prefix.pieces,))
        run("COMMIT")

    def close(self) -> None:
        self._database.close()


def size_in(path: Path) -> Size | None:
    """Size of the pieces in the journal ``path``; None where that is none, or cannot be read."""
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=_PATIENCE)) as database:
            row = database.execute("SELECT value FROM said WHERE name = 'job'").fetchone()
        said = orjson.loads(row[0])
        return Size(*(int(said[name]) for name in _SIZE))
    except (sqlite3.Error, LookupError, TypeError, ValueError):
        return None


def _job(plan: Plan) -> str:
    size = dict(zip(_SIZE, plan.size or (0, 0), strict=True))
    return orjson.dumps({**plan.job._asdict(), **size}).decode()


def _shape(source: Source) -> str:
    shape = source._asdict()
    del shape["location"], shape["fingerprint"]
    return orjson.dumps(shape).decode()


def _words(shape: str) -> str:
    said = orjson.loads(shape)
    return f"{said['rows']:,} rows from row {said['row']:,} on, in pieces of {said['each']:,}"


def _difference(before: str, now: str) -> str:
    """First difference of two jobs, as words."""
    one, other = orjson.loads(before), orjson.loads(now)
    for name in sorted(one.keys() | other.keys()):
        mine, theirs = one.get(name), other.get(name)
        if mine == theirs:
            continue
        if isinstance(mine, dict) and isinstance(theirs, dict):
            name = next(key for key in mine | theirs if mine.get(key) != theirs.get(key))
            mine, theirs = mine.get(name), theirs.get(name)
        return f"{name} was {mine}, and is {theirs} now"
    return "its options differ"
