"""Bulk scoring of ``lossd score``: many shards, on this machine or on others."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kernels.report import numbers
from service.bulk import locations, output, work
from service.bulk.executors.here import Here
from service.bulk.executors.processes import Processes
from service.bulk.journal import Journal
from service.bulk.plan import Failure, Job, Plan, planned
from service.bulk.result import of_report, result
from service.bulk.run import RETRIES, Outcome, Run
from service.cli import bulk_progress, fail, parameters, reports, score_text
from service.codecs.json.values import speakable, written
from service.process import cores

# Exit status where some pieces or shards have no result, and the others do.
PARTLY = 5
# Bytes of logits of a piece.
PIECE_BYTES = 1 << 26
# Bytes of logits for which starting processes, of two seconds each, is not worth it.
_FEW_BYTES = 1 << 31
# Pieces in flight for each worker: the next one is there when one is done.
_EACH = 2
# Failures that are listed.
_LISTED = 20


class Asked(BaseModel):
    """Options of ``lossd score`` that are for many shards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: int | None = Field(
        None,
        ge=0,
        le=4096,
        description="Processes that score pieces, of one thread each; 0: this process, with all"
        " threads. By default as many as there are cores, and 0 for less than 2 GiB of logits.",
    )
    scheduler: str | None = Field(
        None,
        description="Address of Dask's scheduler, such as `tcp://10.0.0.1:8786`, whose workers"
        " score pieces; or `dask`: a cluster of processes on this machine.",
    )
    servers: str | None = Field(
        None,
        description="URLs of lossd servers, separated by commas, that score the pieces which this"
        " process reads and sends them.",
    )
    token_file: Path | None = Field(
        None, description="File whose first line is the token that `--servers` ask for."
    )
    journal: Path | None = Field(
        None,
        description="File of finished pieces (an SQLite database): the same command, given again,"
        " goes on where it was ended.",
    )
    per_element: Path | None = Field(
        None,
        description="Folder that the loss and the prediction of each element are written to, a"
        " file a shard.",
    )
    piece_bytes: int = Field(
        PIECE_BYTES,
        ge=1,
        le=2**40,
        description="Bytes of logits that a worker has at a time, about: no row is cut. The result"
        " does not depend on it.",
    )
    retries: int = Field(
        RETRIES, ge=0, le=100, description="How often a piece that failed is tried again."
    )
    name: str | None = Field(
        None,
        description="Names of tensors in the shards where they are not ours, such as"
        " `logits=output,labels=y`.",
    )


def score_shards(
    files: Sequence[str], given: Mapping[str, str], query: Mapping[str, str], worst: int,
    report: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Score the shards that ``files`` name, and print the result.

    ``given`` are options of ``Asked``, and ``query`` those of the loss or of the report, as texts.
    Raises ``typer.Exit`` where some or all of it fails, ``InvalidOption``, ``InvalidInput``,
    ``DecodeError`` and ``OSError``.
    """
    asked = _asked(given)
    names = _names(asked.name)
    where = locations.shards(files, names)
    if report is not None and asked.per_element is not None:
        raise fail("--per-element is for a score, and a report has none: leave one of them out")
    folder = None if asked.per_element is None else str(asked.per_element)
    job = Job({}, names, worst, report is not None, folder)
    with ExitStack() as stack:
        with bulk_progress.shown() as shown:
            shown.opening(len(where))
            plan = planned(where, job, query, asked.piece_bytes, shown.opened)
            if asked.per_element is not None:
                shards = [source.location for source in plan.sources]
                plan.places = output.places(asked.per_element, shards)
            journal = None
            if asked.journal is not None:
                journal = Journal(asked.journal, plan)
                stack.callback(journal.close)
                for source in journal.changed:
                    typer.echo(
                        f"{source.location} changed since the journal was begun: all of it is"
                        " scored anew",
                        err=True,
                    )
            shown.compiling()
            executor, in_flight = _executor(plan, asked)
            stack.callback(executor.shutdown, wait=False, cancel_futures=True)
            shown.scoring()
            run = Run(
                plan,
                executor,
                in_flight=in_flight,
                journal=journal,
                retries=asked.retries,
                told=shown.told,
            )
            outcome = _until_signalled(run)
        if outcome.stopped:
            raise _stopped(plan, outcome, asked.journal)
        _print(plan, outcome, report, as_json)
    if outcome.failures:
        raise _failed(outcome.failures)


def _asked(given: Mapping[str, str]) -> Asked:
    try:
        return Asked.model_validate_strings(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = parameters.option(str(first["loc"][0]))
        raise fail(f"{option} {first['input']}: {first['msg'].lower()}") from None


def _names(given: str | None) -> dict[str, str]:
    """Names of tensors in the shards by ours, from ``logits=theirs,labels=theirs``."""
    names = {}
    for text in [] if given is None else given.split(","):
        ours, sign, theirs = text.partition("=")
        if not sign or ours not in locations.NAMES or not theirs:
            known = ", ".join(locations.NAMES)
            raise fail(f"--name {text}: give one of {known}, then =, then its name in the shards")
        names[ours] = theirs
    return names


def _executor(plan: Plan, asked: Asked) -> tuple[Executor, int]:
    """Executor that was asked for, its kernels compiled, and the pieces to be in flight there."""
    places = {
        "--workers": asked.workers, "--scheduler": asked.scheduler, "--servers": asked.servers
    }  # fmt: skip
    chosen = [option for option, value in places.items() if value is not None]
    if len(chosen) > 1:
        raise fail(f"{' and '.join(chosen)} exclude each other: give one")
    if asked.scheduler is not None:
        from service.bulk.executors.dask import Dask

        dask = Dask(None if asked.scheduler == "dask" else asked.scheduler)
        return dask, dask.workers * _EACH
    if asked.servers is not None:
        from service.bulk.executors.servers import Servers

        if plan.job.report:
            raise fail("--servers do not make reports: use --workers or --scheduler")
        token = None
        if asked.token_file is not None:
            token = asked.token_file.read_text().splitlines()[0].strip()
        servers = Servers([url.strip() for url in asked.servers.split(",")], token)
        return servers, servers.workers * _EACH
    work.prepare(plan.samples())
    workers = asked.workers
    if workers is None:
        few = sum(source.rows * source.row_bytes for source in plan.sources) < _FEW_BYTES
        workers = 0 if few else cores.available()
    if workers == 0:
        return Here(), 1
    return Processes(workers), workers * _EACH


def _until_signalled(run: Run) -> Outcome:
    """Outcome of ``run``, which Ctrl-C and SIGTERM stop; a second one ends the process at once."""
    with _handled(run.stop):
        return run.run()


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
