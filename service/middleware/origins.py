"""Origins whose pages may read answers in a browser (CORS): none, unless a setting names them."""

from __future__ import annotations

import re

from service.settings import Settings, SettingsError, variable

_ORIGIN = re.compile(r"https?://[A-Za-z0-9._\-\[\]:]+")
_SEPARATORS = re.compile(r"[\s,]+")
_EVERY = "*"
# Fields of answers that a page may read: it needs the first to take a V2 answer apart.
EXPOSED = ("inference-header-content-length", "retry-after", "x-request-id")


def cors_origins(settings: Settings) -> tuple[str, ...]:
    """Return the origins that ``settings`` name. Raises ``SettingsError`` for what is none."""
    named = tuple(word for word in _SEPARATORS.split(settings.cors_origins or "") if word)
    for word in named:
        if word != _EVERY and not _ORIGIN.fullmatch(word):
            raise SettingsError(
                f"{variable('cors_origins')} holds {word[:100]!r}: an origin is a scheme and a"
                f" host, such as https://example.org, without a path; {_EVERY} is every origin"
            )
    return named
