"""Bulk scoring of ``lossd score``: many shards, on this machine or on others."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import typer

from kernels.report import numbers
from service.bulk import locations, output
from service.bulk.executors import ExecutorLost
from service.bulk.journal import Journal
from service.bulk.merging import merged
from service.bulk.part import span_of
from service.bulk.plan import Failure, Job, Plan, planned
from service.bulk.result import of_report, result
from service.bulk.run import Outcome, Run
from service.cli import bulk_progress, fail, reports, score_text
from service.cli.bulk_options import asked_of, check, journals_of, names_of
from service.cli.bulk_workers import executor_of, size_of
from service.codecs.json.values import speakable, written

# Exit status where some pieces or shards have no result, and the others do.
PARTLY = 5
# Exit status where a run ended before its pieces, since none can be scored any more.
LOST = 4
# Failures that are listed.
_LISTED = 20


def score_shards(
    files: Sequence[str], given: Mapping[str, str], query: Mapping[str, str], worst: int,
    report: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Score the shards that ``files`` name, and print the result.

    ``given`` are options of ``Asked``, and ``query`` those of the loss or of the report, as texts.
    Raises ``typer.Exit`` where some or all of it fails, ``InvalidOption``, ``InvalidInput``,
    ``DecodeError`` and ``OSError``.
    """
    asked = asked_of(given)
    names = names_of(asked.name)
    where = locations.shards(files, names)
    check(asked, report)
    folder = None if asked.per_element is None else str(asked.per_element)
    job = Job({}, names, worst, report is not None, folder)
    with ExitStack() as stack:
        with bulk_progress.shown() as shown:
            shown.opening(len(where))
            plan = planned(where, job, query, size_of(asked, where), shown.opened)
            if asked.per_element is not None:
                shards = [source.location for source in plan.sources]
                plan.places = output.places(asked.per_element, shards)
            part = None if asked.part is None else span_of(asked.part, plan)
            journal = None if asked.journal is None else _journal(asked.journal, plan, stack)
            if asked.merge is not None:
                outcome = merged(journals_of(asked.merge), plan, journal)
                _finish(plan, outcome, report, as_json)
                return
            shown.compiling()
            executor, in_flight = executor_of(plan, asked)
            stack.callback(executor.shutdown, wait=False, cancel_futures=True)
            shown.scoring()
            run = Run(
                plan,
                executor,
                in_flight=in_flight,
                journal=journal,
                part=part,
                retries=asked.retries,
                told=shown.told,
            )
            outcome = _until_signalled(run)
        if outcome.stopped:
            raise _stopped(plan, outcome, asked.journal)
        if part is not None:
            pieces = f"{outcome.finished:,} of {len(part):,} pieces"
            typer.echo(
                f"part {asked.part}: {pieces} have their result in {asked.journal}", err=True
            )
            outcome = outcome._replace(failures=_of_part(part, outcome.failures))
        _finish(plan, outcome, report, as_json, printed=part is None)


def _journal(path: Path, plan: Plan, stack: ExitStack) -> Journal:
    """Journal at ``path``, which ``stack`` closes; shards that changed are told."""
    journal = Journal(path, plan)
    stack.callback(journal.close)
    for source in journal.changed:
        typer.echo(
            f"{source.location} changed since the journal was begun: all of it is scored anew",
            err=True,
        )
    return journal


def _of_part(part: range, failures: Sequence[Failure]) -> list[Failure]:
    """Failures of the pieces in ``part``; and all shards that cannot be opened, in the first."""
    return [failure for failure in failures if failure.first is not None or part.start == 0]


def _finish(
    plan: Plan, outcome: Outcome, report: Path | None, as_json: bool, printed: bool = True
) -> None:
    """Print the result of ``outcome``. Raises ``typer.Exit`` where something has none."""
    if printed:
        _print(plan, outcome, report, as_json)
    if outcome.failures:
        raise _failed(outcome.failures)


def _until_signalled(run: Run) -> Outcome:
    """Outcome of ``run``, which Ctrl-C and SIGTERM stop; a second one ends the process at once."""
    try:
        with _handled(run.stop):
            return run.run()
    except ExecutorLost as error:
        raise fail(str(error), LOST) from None
    except sqlite3.Error as error:  # its disk is full, or gone; it has what was saved before
        raise fail(f"the journal cannot be written: {error}", LOST) from None


@contextmanager
def _handled(stop: Callable[[], object]) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        _SIGNALLED[:] = [number]
        stop()

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNALLED: list[int] = []


def _stopped(plan: Plan, outcome: Outcome, journal: Path | None) -> typer.Exit:
    kept = "nothing of it is kept: give --journal FILE" if journal is None else f"kept in {journal}"
    more = "" if journal is None else "; the same command goes on from there"
    text = f"stopped after {outcome.finished:,} of {plan.pieces:,} pieces, {kept}{more}"
    return fail(text, 128 + (_SIGNALLED or [signal.SIGINT])[0])


def _print(plan: Plan, outcome: Outcome, report: Path | None, as_json: bool) -> None:
    if report is None:
        found = result(plan, outcome)
        if as_json:
            typer.echo(json.dumps(speakable(found), allow_nan=False))
        else:
            score_text.show(found)
    elif outcome.report is not None:
        shards = f"{len(plan.sources):,} shards"
        reports.write(report, outcome.report, {}, shards)
        if as_json:
            typer.echo(written(of_report(plan, outcome, numbers(outcome.report))).decode())
        else:
            typer.echo(reports.summary(outcome.report, False))


def _failed(failures: Sequence[Failure]) -> typer.Exit:
    for failure in failures[:_LISTED]:
        rows = "" if failure.first is None else f", rows {failure.first} to {failure.stop}"
        typer.echo(f"lossd: {failure.location}{rows}: {failure.reason}", err=True)
    more = f", of which the first {_LISTED} are listed" if len(failures) > _LISTED else ""
    what = "piece or shard has" if len(failures) == 1 else "pieces or shards have"
    return fail(f"{len(failures):,} {what} no result{more}; the rest is scored", PARTLY)
