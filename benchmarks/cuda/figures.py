"""Figures of a part of the check: a line of JSON each, for ``check`` to collect as they come."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

# The file that a part appends its figures to; unset where a part is run by hand.
VARIABLE = "LOSSD_FIGURES"


def put(name: str, value: Any) -> None:
    """Print a figure, and append it to the file that ``VARIABLE`` names.

    ``value`` is JSON: a number, a string, a list or a dict of these. A later value of the same name
    takes the place of an earlier one.
    """
    line = json.dumps({name: value})
    print(line, flush=True)
    if path := os.environ.get(VARIABLE):
        with Path(path).open("a") as file:
            file.write(line + "\n")


def collected(path: Path) -> dict[str, Any]:
    """The figures in ``path`` by name; a line that was cut off, when a part was ended, is left."""
    figures: dict[str, Any] = {}
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            try:
                figures |= json.loads(line)
            except ValueError:
                continue
    return figures
