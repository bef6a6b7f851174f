"""Options of ``lossd score`` for many shards."""

from __future__ import annotations

from collections.abc import Mapping
from glob import glob, has_magic
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.bulk import locations
from service.bulk.run import RETRIES
from service.cli import fail, parameters


class Asked(BaseModel):
    """Options of ``lossd score`` that are for many shards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: int | None = Field(
        None,
        ge=0,
        le=4096,
        description="Processes that score pieces, of one thread each; 0: this process, with all"
        " threads. By default as many as there are cores, and 0 for less than 2 GiB of logits,"
        " or 16 GiB in mapped files (.safetensors, .npy).",
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
        None, description="File whose first token, one a line, is what `--servers` ask for."
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
    part: str | None = Field(
        None,
        description="Part I/N of the pieces, I from 0: it alone is scored, into `--journal`, by one"
        " of N machines; see `--merge`.",
    )
    merge: str | None = Field(
        None,
        description="Journals of parts, as paths or patterns with commas between them: nothing is"
        " scored, and the result of all parts is printed. With `--journal` the pieces from the"
        " first one on are kept there as a total, from which the same command goes on:"
        " parts are merged while others run.",
    )
    piece_bytes: int | None = Field(
        None,
        ge=1,
        le=2**40,
        description="Bytes of logits that a worker has at a time, about: no row is cut. The result"
        " does not depend on it. By default those of the journal, if it is begun, or 256 MiB,"
        " 64 MiB for `--servers`, and less, down to 16 MiB, where a worker would have fewer than 4"
        " pieces.",
    )
    retries: int = Field(
        RETRIES, ge=0, le=100, description="How often a piece that failed is tried again."
    )
    name: str | None = Field(
        None,
        description="Names of tensors in the shards where they are not ours, such as"
        " `logits=output,labels=y`.",
    )


def asked_of(given: Mapping[str, str]) -> Asked:
    """Options that are ``given`` as texts. Raises ``typer.Exit``."""
    try:
        return Asked.model_validate_strings(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = parameters.option(str(first["loc"][0]))
        raise fail(f"{option} {first['input']}: {first['msg'].lower()}") from None


def names_of(given: str | None) -> dict[str, str]:
    """Names of tensors in the shards by ours, from ``logits=theirs,labels=theirs``."""
    names = {}
    for text in [] if given is None else given.split(","):
        ours, sign, theirs = text.partition("=")
        if not sign or ours not in locations.NAMES or not theirs:
            known = ", ".join(locations.NAMES)
            raise fail(f"--name {text}: give one of {known}, then =, then its name in the shards")
        names[ours] = theirs
    return names


def check(asked: Asked, report: Path | None) -> None:
    """Refuse options that exclude each other. Raises ``typer.Exit``."""
    apart = {"--part": asked.part, "--merge": asked.merge}
    for option, value in apart.items():
        if value is not None and report is not None:
            raise fail(
                f"{option} is for a score: of reports, give each machine some of the shards and a"
                " `--report` of its own, and merge those by `lossd report merge`"
            )
        if value is not None and asked.per_element is not None:
            raise fail(f"{option} has no results by element: leave out --per-element")
    if report is not None and asked.per_element is not None:
        raise fail("--per-element is for a score, and a report has none: leave one of them out")
    if asked.part is not None and asked.merge is not None:
        raise fail("--part scores, and --merge scores nothing: give one")
    if asked.part is not None and asked.journal is None:
        raise fail("--part needs --journal FILE, which is what is merged")


def journals_of(text: str) -> list[Path]:
    """Journals that ``text``, the option `--merge`, names. Raises ``typer.Exit`` if none match."""
    found: dict[Path, None] = {}
    for pattern in filter(None, text.split(",")):
        paths = sorted(glob(pattern)) if has_magic(pattern) else [pattern]
        if not paths:
            raise fail(f"--merge {pattern}: no file matches")
        found |= dict.fromkeys(map(Path, paths))
    return [*found]
