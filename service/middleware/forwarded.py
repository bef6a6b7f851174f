"""Forwarded and X-Forwarded-For/-Proto: the client and the scheme as trusted proxies saw them.

Any client can send these fields, so only those that a trusted proxy added are believed: the list is
read from its end, for as long as its addresses are trusted ones (RFC 7239, section 8.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from service.settings import SettingsError, variable

# Word in place of an address for clients of a Unix socket, which have none.
UNIX = "unix"
_SEPARATORS = re.compile(r"[\s,]+")
# forwarded-pair of RFC 7239: a token, and a token or a quoted string.
_PAIR = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^\s";,]*)\s*')
_SCHEMES = ("http", "https")


class Hop(NamedTuple):
    """Client as one proxy saw it: its address, and the scheme; empty where it did not say."""

    address: str
    scheme: str


class Trusted:
    """Proxies that are believed: addresses and networks, and ``unix``."""

    def __init__(self, text: str) -> None:
        words = [word for word in _SEPARATORS.split(text) if word]
        self._unix = UNIX in words
        self._networks: list[IPv4Network | IPv6Network] = []
        for word in words:
            if word != UNIX:
                try:
                    self._networks.append(ip_network(word))
                except ValueError as error:
                    raise SettingsError(
                        f"{variable('trusted_proxies')} holds {word[:100]!r}: {error}; it takes"
                        f" addresses, networks such as 10.0.0.0/8, and {UNIX}"
                    ) from None

    def __contains__(self, address: object) -> bool:
        if address is None:
            return self._unix
        try:
            known = ip_address(str(address))
        except ValueError:
            return False
        return any(known in network for network in self._networks)


class Forwarded:
    """ASGI middleware that sets the scope's client and scheme to what ``trusted`` proxies say."""

    def __init__(self, app: ASGIApp, trusted: Trusted) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            peer = scope["client"]
            hop = furthest(None if peer is None else peer[0], scope["headers"], self._trusted)
            # In place: the server's log shows the client, too.
            if hop.address:
                scope["client"] = (hop.address, 0)
            if hop.scheme in _SCHEMES:
                scope["scheme"] = hop.scheme
        await self._app(scope, receive, send)


def furthest(peer: str | None, headers: Iterable[tuple[bytes, bytes]], trusted: Trusted) -> Hop:
    """Return the hop that the furthest trusted proxy added; an empty one where there is none."""
    found = Hop("", "")
    address: str | None = peer
    for hop in reversed(_hops(list(headers))):
        if address not in trusted:
            break
        if not _is_address(hop.address):
            return hop._replace(address=found.address)  # "unknown", or a name that hides it
        found, address = hop, hop.address
    return found


def _hops(headers: list[tuple[bytes, bytes]]) -> list[Hop]:
    """List the hops of ``Forwarded`` or, without it, of the fields from before RFC 7239."""

    def joined(name: bytes) -> str:
        return ",".join(value.decode("latin-1") for key, value in headers if key == name)

    text = joined(b"forwarded")
    if text:
        return _elements(text)
    clients = _listed(joined(b"x-forwarded-for"))
    schemes = _listed(joined(b"x-forwarded-proto"))
    if len(schemes) != len(clients):  # most proxies send one, whichever way the request came
        schemes = [schemes[-1] if schemes else ""] * len(clients)
    return [
        Hop(_without_port(client), scheme.lower())
        for client, scheme in zip(clients, schemes, strict=True)
    ]


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _elements(text: str) -> list[Hop]:
    """Parse the field ``Forwarded``: no hops where it is malformed."""
    hops, pairs, at = [], dict[str, str](), 0
    while True:
        pair = _PAIR.match(text, at)
        if pair is None:
            return []
        name, value = pair[1].lower(), pair[2]
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        pairs[name] = value
        at = pair.end()
        if text[at : at + 1] != ";":
            hops.append(Hop(_without_port(pairs.get("for", "")), pairs.get("proto", "").lower()))
            pairs = {}
        if at == len(text):
            return hops
        if text[at] not in ";,":
            return []
        at += 1


def _without_port(text: str) -> str:
    """Remove the port of ``192.0.2.1:80`` and ``[2001:db8::1]:80``, and the brackets."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
