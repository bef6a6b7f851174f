"""Control groups (Linux, versions 1 and 2): the limits that a container or a service unit has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Files(NamedTuple):
    """Files that hold one limit: ``first`` of version 1, below ``controller``; ``second`` of 2."""

    controller: str
    first: tuple[str, ...]
    second: tuple[str, ...]


def limits(files: Files, root: Path = Path("/")) -> Iterator[tuple[str, ...]]:
    """Texts of ``files`` in each control group of this process, the innermost group first.

    A limit of any of them holds. Texts of missing files are empty; ``root`` is the parent of
    ``proc`` and ``sys``.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and files.controller not in controllers.split(","):
            continue
        names = files.first if controllers else files.second
        top = root / "sys/fs/cgroup" / (files.controller if controllers else "")
        group = top / path.lstrip("/")
        # In a container the path may be the host's, of which only the top exists.
        for folder in (group, *group.parents):
            yield tuple(_text(folder / name).strip() for name in names)
            if folder == top:
                break


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
