"""Bearer tokens: without a known one only health, the page and the documentation are answered.

The path is the one that requests are routed by, never a URL built from the Host header
(CVE-2026-48710). Every path that is not in ``PUBLIC`` needs a token.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Unauthorized
from service.middleware import PROBES
from service.page import ASSETS
from service.problems import problem
from service.settings import Settings, SettingsError, variable

# The page and the documentation hold no secret, and a browser sends no token with a page's address:
# they ask for one, and send it with the requests that they make.
_FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png")
DOCUMENTATION = frozenset({"/docs", "/openapi.json", *(f"/docs/{name}" for name in _FILES)})
PAGE = frozenset({"/", *(f"/page/{name}" for name in ASSETS if not name.endswith(".html"))})
PUBLIC = PROBES | DOCUMENTATION | PAGE

_MISSING = "a token is needed: send the header Authorization: Bearer TOKEN"
_WRONG = (
    "the token is not accepted: send one header Authorization: Bearer TOKEN, with one of the tokens"
    " that this server was started with"
)

# Characters of a token below which guessing is worth a try; 22 random ones hold 128 bits.
_SHORT = 16

_log = logging.getLogger("uvicorn.lossd")

_UNSET = ": unset it to answer everybody"
_TOKEN = re.compile(r"[!-~]+")
_SEPARATORS = re.compile(r"[\s,]+")


class Gate:
    """ASGI middleware that refuses requests without a known token, before any route has them."""

    def __init__(self, app: ASGIApp, tokens: Iterable[str]) -> None:
        self._app = app
        self._known = [hashlib.sha256(token.encode()).digest() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in PUBLIC or self._knows(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            given = any(name == b"authorization" for name, _ in scope["headers"])
            refusal = problem(Unauthorized(_WRONG if given else _MISSING, field="authorization"))
            refusal.headers["WWW-Authenticate"] = "Bearer"
            await refusal(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _knows(self, scope: Scope) -> bool:
        """Tell whether there is one Authorization, and it holds a known token.

        All digests are compared, each to its end, so that the time taken reveals nothing.
        """
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = b" ".join(given).strip().partition(b" ")
        digest = hashlib.sha256(token.strip()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._known]
        return any(matches) and len(given) == 1 and scheme.lower() == b"bearer"


def tokens(settings: Settings) -> frozenset[str]:
    """Return the tokens that ``settings`` name; without any, every client is answered.

    Raises ``SettingsError`` if a source holds no token, cannot be read, or holds one that could not
    stand in a header. No message holds a token.
    """
    found: set[str] = set()
    if settings.auth_tokens is not None:
        listed = _SEPARATORS.split(settings.auth_tokens.get_secret_value())
        found |= {*_checked(listed, variable("auth_tokens"), "token", _UNSET)}
    if settings.auth_token_file is not None:
        source = f"{variable('auth_token_file')} {settings.auth_token_file}"
        found |= {*tokens_in(settings.auth_token_file, source, _UNSET)}
    return frozenset(found)


def tokens_in(path: str, source: str, advice: str = "") -> list[str]:
    """Tokens in the file ``path``, one a line, in order; ``source`` is its name in messages.

    Raises ``SettingsError`` as ``tokens`` does, where there is none with ``advice``.
    """
    return _checked(_lines(path, source), source, "line", advice)


def warn_of_weak(settings: Settings, held: Iterable[str]) -> None:
    """Log a warning of tokens that can be guessed, and of a file that others can read or change."""
    short = sum(len(token) < _SHORT for token in held)
    if short:
        _log.warning(
            "%d of the tokens can be guessed: give each %d characters or more, at random",
            short,
            _SHORT,
        )
    if settings.auth_token_file is None:
        return
    try:
        mode = stat.S_IMODE(os.stat(settings.auth_token_file).st_mode)
    except OSError:  # it has been read, and is gone since
        return
    others = [
        what
        for what, bits in (("read", stat.S_IROTH), ("change", stat.S_IWGRP | stat.S_IWOTH))
        if mode & bits
    ]
    if others:
        _log.warning(
            "others than its user may %s %s, whose mode is %04o: chmod 600 ends that",
            " and ".join(others),
            settings.auth_token_file,
            mode,
        )


def _lines(path: str, source: str) -> list[str]:
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        raise SettingsError(f"{source} cannot be read: {reason}") from None
    # "#" starts a comment: RFC 6750 has none in a token.
    return ["" if line.startswith("#") else line.strip() for line in lines]


def _checked(listed: Iterable[str], source: str, kind: str, advice: str) -> list[str]:
    held = {number: token for number, token in enumerate(listed, 1) if token}
    for number, token in held.items():
        if not _TOKEN.fullmatch(token):
            raise SettingsError(f"{source}: {kind} {number} is not of visible ASCII characters")
    if not held:
        raise SettingsError(f"{source} holds no token{advice}")
    return [*held.values()]
