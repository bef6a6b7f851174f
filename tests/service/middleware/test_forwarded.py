"""Forwarded and X-Forwarded-*: believed only from proxies that a setting names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.middleware.forwarded import Forwarded, Hop, Trusted, furthest
from service.settings import SettingsError

PROXY, INNER, CLIENT, LIAR = "10.0.0.1", "10.0.0.2", "192.0.2.7", "203.0.113.9"
TRUSTED = Trusted("10.0.0.0/8, ::1")


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"x-forwarded-for": CLIENT, "x-forwarded-proto": "https"}, Hop(CLIENT, "https")),
        ({"x-forwarded-for": f"{LIAR}, {CLIENT}"}, Hop(CLIENT, "")),
        ({"x-forwarded-for": f"{LIAR}, {CLIENT}, {INNER}"}, Hop(CLIENT, "")),
        ({"x-forwarded-for": f"{CLIENT}:4711"}, Hop(CLIENT, "")),
        ({"x-forwarded-for": "[2001:db8::1]:80"}, Hop("2001:db8::1", "")),
        (
            {"x-forwarded-for": f"{CLIENT}, {INNER}", "x-forwarded-proto": "https, http"},
            Hop(CLIENT, "https"),
        ),
        ({"forwarded": f"for={CLIENT};proto=https;by=10.0.0.1"}, Hop(CLIENT, "https")),
        ({"forwarded": 'For="[2001:db8::1]:4711"'}, Hop("2001:db8::1", "")),
        ({"forwarded": f"for={LIAR}, for={CLIENT};proto=https, for={INNER}"}, Hop(CLIENT, "https")),
        ({"forwarded": f'for="{CLIENT}" ; proto=HTTPS'}, Hop(CLIENT, "https")),
        ({"forwarded": f"for={CLIENT}", "x-forwarded-for": LIAR}, Hop(CLIENT, "")),
        ({"forwarded": "for=unknown;proto=https"}, Hop("", "https")),
        ({"forwarded": f"for=_hidden, for={INNER}"}, Hop(INNER, "")),
        ({"forwarded": f"for={CLIENT} proto=https"}, Hop("", "")),
        ({"forwarded": 'for="unended'}, Hop("", "")),
        ({"x-forwarded-proto": "https"}, Hop("", "")),
        ({}, Hop("", "")),
    ],
)
def test_the_furthest_trusted_proxy_is_believed(headers: dict[str, str], found: Hop) -> None:
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert furthest(PROXY, fields, TRUSTED) == found
    assert furthest(LIAR, fields, TRUSTED) == Hop("", "")


@given(st.lists(st.tuples(st.sampled_from([b"forwarded", b"x-forwarded-for"]), st.binary())))
def test_any_bytes_are_an_address_or_nothing(headers: list[tuple[bytes, bytes]]) -> None:
    hop = furthest(PROXY, headers, TRUSTED)
    assert not hop.address or hop.address[0].isalnum() or hop.address[0] == ":"


async def client_of(trusted: str, peer: Any) -> tuple[Any, str]:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["client"], scope["scheme"]))

    scope: Any = {
        "type": "http",
        "client": peer,
        "scheme": "http",
        "headers": [(b"forwarded", f"for={CLIENT};proto=https".encode())],
    }
    await Forwarded(app, Trusted(trusted))(scope, None, None)  # type: ignore[arg-type]
    return seen[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("trusted", "peer", "believed"),
    [
        (PROXY, (PROXY, 1234), True),
        (INNER, (PROXY, 1234), False),
        ("unix", None, True),
        (PROXY, None, False),
    ],
)
async def test_the_applications_scope(trusted: str, peer: Any, believed: bool) -> None:
    expected = ((CLIENT, 0), "https") if believed else (peer, "http")
    assert await client_of(trusted, peer) == expected


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy.example", "*"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="LOSSD_TRUSTED_PROXIES holds"):
        Trusted(text)
