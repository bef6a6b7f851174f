"""Command ``lossd warm``: kernels compiled before any start, for this CPU or a level of CPUs."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from kernels import ahead
from kernels.ahead import Compiled
from kernels.compiling import ChildFailed, Told
from kernels.warm import CHILDREN
from service import settings
from service.cli import fail, progress
from service.process import START_FAILED, levels
from service.process.warm_up import warm_up
from service.request.offered import offered_dtypes

NATIVE = "native"
ALL = "all"
_TARGETS = (*levels.LEVELS, ALL, NATIVE)
# Loads what the environment names, and prints what was in no cache.
_LOAD = """
import sys
from service import settings
from service.process.warm_up import warm_up
from service.request.offered import offered_dtypes
missing = warm_up(offered_dtypes(settings.load()))
sys.exit(f"not shipped: {', '.join(missing)}" if missing else 0)
"""


def command(
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<level>",
            help=f"CPUs to compile for, one or several: {', '.join(_TARGETS)} (the default);"
            f" {ALL} is each level of this kind of machine.",
        ),
    ] = None,
    dtypes: Annotated[
        str | None,
        typer.Option(
            metavar="<str>",
            help="Types of logits, separated by commas; all by default, as LOSSD_DTYPES.",
        ),
    ] = None,
) -> None:
    """Compile the kernels, so that later starts need not.

    For `native`, this very CPU, they go to the cache of compiled kernels. For a level, such as
    `x86-64-v3`, they go to the installation itself, which an image may be made of: `lossd serve`
    uses those of the best level that its CPU has. A level above this CPU's own is compiled, but
    not run.
    """
    given = target or [NATIVE]
    for name in given:
        _check_target(name)
    levels_here = levels.of_machine()
    targets = dict.fromkeys(
        one for name in given for one in (levels_here if name == ALL else [name])
    )
    logging.basicConfig(level=logging.WARNING, format="lossd: %(message)s")
    try:
        chosen = settings.load(**({} if dtypes is None else {"dtypes": dtypes}))
        offered = offered_dtypes(chosen)
    except settings.SettingsError as error:
        raise fail(str(error), START_FAILED) from None
    started = time.monotonic()
    # Signatures are those of a process that has run all kernels, which only native ones can be.
    warm_up(offered, progress.bar(f"compiling for {NATIVE}"))
    wanted = ahead.loaded()
    for name in targets:
        if name != NATIVE:
            started = time.monotonic()
            level = levels.LEVELS[name]
            try:
                _compile(level, wanted, progress.bar(f"compiling for {name}"))
            except (ChildFailed, OSError) as error:
                raise fail(f"the kernels for {name} cannot be made: {error}", 1) from None
            if name in levels.present():
                _check(level, chosen)
        seconds = time.monotonic() - started
        note = "" if name in (NATIVE, *levels.present()) else ", which this CPU cannot run"
        typer.echo(f"{len(wanted)} kernels for {name}{note}: {seconds:.0f} s", err=True)


def _check_target(name: str) -> None:
    """Refuse what is no target, and a level of another kind of machine than this one is."""
    if name not in _TARGETS:
        raise fail(f"--target is {name[:200]!r}: it must be one of {', '.join(_TARGETS)}")
    possible = (*levels.of_machine(), ALL, NATIVE)
    if name not in possible:
        raise fail(f"--target is {name!r}: on this kind of machine it can be {', '.join(possible)}")


def _compile(level: levels.Level, wanted: Sequence[Compiled], told: Told | None) -> None:
    """Compile ``wanted`` for ``level``, and replace the level's folder in one step."""
    level.folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=level.folder.parent))
    try:
        ahead.compile_for(
            {**level.environment, "NUMBA_CACHE_DIR": str(made)}, wanted, CHILDREN, told
        )
        # Another user reads them: the cache's own files are for their user alone.
        for path in (made, *made.rglob("*")):
            if path.is_dir() or path.suffix == ".kernel":
                path.chmod(0o755 if path.is_dir() else 0o644)
            else:
                path.unlink()  # a lock
        if level.folder.exists():
            shutil.rmtree(level.folder)
        made.rename(level.folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _check(level: levels.Level, chosen: settings.Settings) -> None:
    """Load the kernels of ``level`` as a start would, and compute the worked example with them."""
    with tempfile.TemporaryDirectory() as empty:
        variables = {**level.environment, "NUMBA_CACHE_DIR": empty, **chosen.environment()}
        ended = subprocess.run(
            [sys.executable, "-P", "-c", _LOAD], env={**os.environ, **variables}, check=False
        )
    if ended.returncode:
        raise fail(f"the kernels in {level.folder} do not replace compiling", START_FAILED)
