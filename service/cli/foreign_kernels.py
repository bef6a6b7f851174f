"""Detection of another distribution's ``kernels`` package in the place of lossd's own."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

# Text of our kernels/__init__.py that no other package of this name has.
_OWN = "def cross_entropy("


def fault() -> str | None:
    """Describe the package that ``import kernels`` would load, unless that is lossd's.

    Hugging Face's ``kernels`` has the same name on PyPI: it lies earlier on the path, or its files
    were installed over ours. Its source is read and not imported, which takes 0.1 ms.
    """
    spec = find_spec("kernels")
    origin = spec.origin if spec is not None else None
    if origin is not None and _OWN in Path(origin).read_text(errors="replace"):
        return None
    found = (
        "is missing" if origin is None else f"in {origin} is another distribution's, not lossd's"
    )
    return f"the package `kernels` {found}: install lossd anew, in an environment of its own"
