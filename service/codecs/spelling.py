"""Misspelled names: which of the known names a text was meant to be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import combinations

_SEPARATORS = re.compile(r"[\W_]+")
_SHORTEST = 5  # letters of a name for each of its letters that may be missing


class Spellings:
    """The known ``names``, to be found by texts that are nearly one of them.

    Nearly: in another case or with other separators; with one letter more, less, changed or
    swapped; with a letter less for every ``_SHORTEST`` of the name.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_letters: Mapping[str, str] = {_letters(name): name for name in names}
        self._by_part: Mapping[str, str] = {
            part: name for name in names for part in _shortened(name, len(name) // _SHORTEST)
        }
        self._longest = max(map(len, names), default=0) + 1

    def meant(self, text: str) -> str | None:
        """The known name that ``text`` nearly is, if there is one."""
        name = self._by_letters.get(_letters(text[: 2 * self._longest]))
        if name is not None or len(text) > self._longest:
            return name
        # Two texts are one edit apart where they are the same after a letter less in each.
        text = text.lower()
        parts = (text, *(text[:at] + text[at + 1 :] for at in range(len(text))))
        return next((self._by_part[part] for part in parts if part in self._by_part), None)


def _letters(text: str) -> str:
    return _SEPARATORS.sub("", text).lower()


def _shortened(text: str, most: int) -> Iterable[str]:
    """``text`` without up to ``most`` of its characters, the least shortened first."""
    for fewer in range(most + 1):
        for left in combinations(text, len(text) - fewer):
            yield "".join(left)
