"""W3C Trace Context: the header ``traceparent``, read strictly (https://www.w3.org/TR/trace-context)."""

from __future__ import annotations

import re
from typing import NamedTuple

# Version, trace, parent's span, flags; later versions may add to that, after a hyphen.
_FORM = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


class Parent(NamedTuple):
    """Trace that a request belongs to, and the caller's span in it, as numbers."""

    trace: int
    span: int
    sampled: bool


def parsed(value: bytes) -> Parent | None:
    """Read the value of the header; None where it is not valid, as if there were none."""
    found = _FORM.fullmatch(value)
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    parent = Parent(int(trace, 16), int(span, 16), bool(int(flags, 16) & _SAMPLED))
    return parent if parent.trace and parent.span else None
