"""An upgrade is declined by going on with HTTP/1.1: bodies, and requests behind them."""

from __future__ import annotations

import pytest

from tests.service.protocol.messages import CHUNKED, Answers, chunked, cuts, request
from tests.service.protocol.transport import exchange

UPGRADES = {
    # As Java's HTTP client asks for HTTP/2.
    "h2c": [
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAEAAEAAAAIAAAAB",
    ],
    "websocket": [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ],
    "several": ["Connection: keep-alive", "Connection: upgrade", "Upgrade: TLS/1.2, h2c, x"],
}
SECOND = request(line="GET /second HTTP/1.1")
EVIL = request(line="GET /evil HTTP/1.1")


@pytest.fixture(params=UPGRADES.values(), ids=list(UPGRADES))
def upgrade(request: pytest.FixtureRequest) -> list[str]:
    fields: list[str] = request.param
    return fields


async def check(data: bytes, bodies: list[bytes], paths: list[str], statuses: list[int]) -> None:
    """``data`` is answered the same however it is cut."""
    for pieces in cuts(data, seed=5):
        sent, wire, echo = await exchange(pieces)
        answers = Answers(sent.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))
        assert answers.statuses == statuses
        assert echo.bodies == bodies
        assert [scope["path"] for scope in echo.scopes] == paths
        assert not any("upgrade" in fields for fields in answers.headers)
        assert wire.open == (statuses[-1] == 200)
        await wire.hang_up()


@pytest.mark.parametrize("size", [0, 10, 50_000, 200_000])
async def test_a_body_of_known_length_is_a_body(upgrade: list[str], size: int) -> None:
    data = request(*upgrade, body=b"x" * size) + SECOND
    await check(data, [b"x" * size, b""], ["/", "/second"], [200, 200])


@pytest.mark.parametrize(
    "pieces",
    [[], [b"x"], [b"ab", b"c" * 5000, b"d"], [EVIL], [b"0\r\n\r\n" + EVIL], [b"x" * 100_000]],
    ids=["empty", "one", "three", "a request", "a last chunk and a request", "large"],
)
async def test_chunks_are_read(upgrade: list[str], pieces: list[bytes]) -> None:
    """Whatever they hold: a request within them is none, and one behind them is."""
    coded = chunked(pieces, b";a=b", trailers=b"X: y\r\n")
    data = request(*upgrade, CHUNKED, body=coded) + SECOND
    await check(data, [b"".join(pieces), b""], ["/", "/second"], [200, 200])


async def test_upgrades_one_behind_another(upgrade: list[str]) -> None:
    first = request(*upgrade, CHUNKED, body=chunked([b"abc"]))
    second = request(*upgrade, "Expect: 100-continue", body=b"12345")
    data = first + first + second + first + SECOND
    bodies = [b"abc", b"abc", b"12345", b"abc", b""]
    await check(data, bodies, ["/"] * 4 + ["/second"], [200] * 5)


@pytest.mark.parametrize(
    "trailers",
    [
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        b"Content-Length: 40\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: other\r\n",
    ],
)
async def test_trailers_change_no_framing(upgrade: list[str], trailers: bytes) -> None:
    """They are passed over, or refused as they are without an upgrade."""
    for fields in (upgrade, []):
        data = request(*fields, CHUNKED, body=chunked([b"abc"], trailers=trailers)) + SECOND
        for pieces in cuts(data, seed=6):
            sent, wire, echo = await exchange(pieces)
            statuses = Answers(sent).statuses
            assert statuses in ([200, 200], [400])
            assert [scope["path"] for scope in echo.scopes] == ["/", "/second"][: len(statuses)]
            assert wire.open == (statuses[-1] == 200)
            await wire.hang_up()


async def test_frames_of_another_protocol_are_no_requests(upgrade: list[str]) -> None:
    for frames in (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f"):
        data = request(*upgrade, line="GET / HTTP/1.1") + frames
        await check(data, [b""], ["/"], [200, 400])


@pytest.mark.parametrize("ending", ["Connection: close", "Connection: close, upgrade"])
async def test_nothing_follows_the_last_request(upgrade: list[str], ending: str) -> None:
    coded = chunked([b"abc"])
    for pieces in cuts(request(*upgrade, ending, CHUNKED, body=coded) + EVIL, seed=7):
        sent, wire, echo = await exchange(pieces)
        assert Answers(sent).statuses == [200]
        assert echo.bodies == [b"abc"]
        assert not wire.open
