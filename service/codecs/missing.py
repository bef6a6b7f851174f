"""Error of a file that lacks a tensor, with what it holds and what is probably meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from service.codecs.base import shown
from service.codecs.naming import meant

# Names of other tensors that a message lists.
_LISTED = 20


def missing(
    name: str, held: Iterable[str], others: Sequence[str], advise: Callable[[str], str]
) -> str:
    """Text of the error that ``name`` is missing beside the tensors ``held`` and ``others``.

    ``advise`` says what to do if one of the others, which it is given quoted, is meant.
    """
    names = [*held, *([listed(others)] if others else [])]
    probably = next((other for other in others if meant(other, (name,))), None)
    advice = "" if probably is None else f"; {advise(shown(probably))} if that is it"
    return f"holds no {name}, only: {', '.join(names) or 'nothing'}{advice}"


def listed(names: Sequence[str]) -> str:
    """Join ``names`` for a message; of many, the first ``_LISTED``."""
    more = len(names) - _LISTED
    return ", ".join(map(shown, names[:_LISTED])) + (f" and {more:,} more" if more > 0 else "")
