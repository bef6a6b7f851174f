"""Fleet of lossd servers: whom a request is sent to, again if it fails, twice if it is slow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import orjson

from kernels import InvalidInput
from service import VERSION
from service.bulk.executors.inference import (
    HEADER_LENGTH,
    MODEL,
    PATH,
    TERMS,
    Request,
    WrongAnswer,
    arrays_of,
)
from service.codecs.base import Array
from service.errors import InvalidOption

# Requests that a server has at a time: one arrives while another is computed.
EACH = 2
# Seconds without an answer of any server after which a request is given up, and those that a
# connection, or an answer, may take.
PATIENCE, _CONNECT = 300.0, 10.0
# Failures of one request, with different servers if there are, after which it is given up: it may
# be what brings them down.
_FAILURES = 5
# Seconds that a server is left alone after its first failure, and twice as long after each other.
_REST, _LONGEST_REST = 0.25, 15.0
# A request is sent to a second server once it takes so many times the median of the last ones, and
# so many seconds.
_SLOW, _SLOW_SECONDS, _KNOWN = 3.0, 1.0, 5


class Failed(Exception):
    """Request that no server answered; the text says why. It may succeed later."""


class _Busy(Exception):
    """Answer of a server that asks to be left alone for some seconds."""


@dataclass
class Server:
    """A server: its URL, the requests that it has, and until when it is left alone."""

    url: str
    busy: int = 0
    rests_until: float = 0.0
    failures: int = 0


def servers_of(urls: Iterable[str]) -> list[Server]:
    """Servers at ``urls``. Raises ``InvalidOption`` for what is no URL of a server."""
    found = []
    for url in urls:
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            valid = False
        if not valid or parts.username or parts.query or parts.fragment:
            raise InvalidOption(
                f"servers has {url!r:.200}: give URLs such as http://host:8000, with commas"
                " between them; a token comes from a file",
                field="servers",
            )
        found.append(Server(url.rstrip("/")))
    if len({server.url for server in found}) < len(found) or not found:
        raise InvalidOption("servers must be one URL or more, each once", field="servers")
    return found


class Fleet:
    """Servers that answer the same requests, to the same bits.

    Of an event loop. ``hedged`` is how many requests were sent to a second server, ``repeated`` how
    many were sent again after a failure.
    """

    def __init__(self, servers: list[Server], token: str | None) -> None:
        self.servers = servers
        self.hedged = self.repeated = 0
        self._seconds: deque[float] = deque(maxlen=64)
        self._answered = asyncio.get_running_loop().time()
        self._client = httpx.AsyncClient(
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(PATIENCE, connect=_CONNECT, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def check(self) -> None:
        """Check that the servers are lossd of this version, and have the outputs that are needed.

        Those that cannot be reached are left for later, if one can. Raises ``InvalidOption``.
        """
        reasons = await asyncio.gather(*map(self._reason, self.servers))
        if all(reasons):
            raise InvalidOption("; ".join(map(str, reasons)), field="servers")

    async def _reason(self, server: Server) -> str | None:
        """Reason why ``server`` cannot be reached. Raises ``InvalidOption`` for a wrong one."""
        try:
            about = await self._client.get(f"{server.url}/v2")
            model = await self._client.get(f"{server.url}/v2/models/{MODEL}")
        except httpx.TransportError as error:
            server.failures, server.rests_until = 1, self._now() + _REST
            return f"{server.url} cannot be reached ({_text(error)})"
        for answer in (about, model):
            if answer.status_code == 503:
                return None  # it starts, or has much to do
            if answer.status_code != 200:
                said = _problem(answer.status_code, answer.content).get("detail")
                text = f"{server.url} answers {answer.status_code}: {said}"
                raise InvalidOption(text, field="servers")
        try:
            said, outputs = about.json(), {row["name"] for row in model.json()["outputs"]}
            name, version = said["name"], said["version"]
        except (ValueError, KeyError, TypeError):
            name = version = outputs = None
        if name != "lossd" or outputs is None:
            raise InvalidOption(f"{server.url} is no lossd server", field="servers")
        if version != VERSION:
            raise InvalidOption(
                f"{server.url} is lossd {version}, and this is {VERSION}: two versions may differ"
                " in the last bits of a loss",
                field="servers",
            )
        if missing := {*TERMS.values()} - outputs:
            raise InvalidOption(
                f"{server.url} does not have the outputs {', '.join(sorted(missing))}, which"
                " losses of several pieces are added from: update it",
                field="servers",
            )
        return None

    async def arrays(self, request: Request) -> dict[str, Array]:
        """Arrays of ``request``, from whichever server has them first.

        Raises ``InvalidInput`` for what a server refuses, and ``Failed``.
        """
        failures = 0
        while True:
            server = await self._least_busy()
            try:
                return await self._raced(server, request)
            except _Busy:
                continue
            except Failed as error:
                failures += 1
                if failures >= _FAILURES:
                    raise Failed(f"{error}; given up after {failures} failures") from None
                self.repeated += 1
            except httpx.ConnectError:
                continue  # it was never there: another may be, and `_least_busy` has the deadline

    async def _least_busy(self) -> Server:
        """The server with the fewest requests, once there is one that need not be left alone."""
        while True:
            now = self._now()
            awake = [server for server in self.servers if server.rests_until <= now]
            if awake:
                return min(awake, key=lambda server: server.busy)
            if now - self._answered > PATIENCE:
                raise Failed(f"no server has answered for {PATIENCE:.0f} seconds")
            soonest = min(server.rests_until for server in self.servers)
            await asyncio.sleep(max(soonest - now, 0.001))

    async def _raced(self, server: Server, request: Request) -> dict[str, Array]:
        """Send ``request``, to a second server too where the first is slow; the first answer."""
        tasks = [asyncio.create_task(self._once(server, request))]
        try:
            while True:
                pending = [task for task in tasks if not task.done()]
                wait = self._slow() if len(tasks) == 1 else None
                done, _ = await asyncio.wait(
                    pending, timeout=wait, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    if task.exception() is None or len(done) == len(pending):
                        return task.result()
                if not done and (other := self._idle(server)) is not None:
                    self.hedged += 1
                    tasks.append(asyncio.create_task(self._once(other, request)))
        finally:
            # A server stops computing once its client is gone.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _slow(self) -> float:
        known = len(self._seconds) >= _KNOWN
        return max(_SLOW_SECONDS, _SLOW * median(self._seconds)) if known else PATIENCE / 10

    def _idle(self, server: Server) -> Server | None:
        """Another server with room for a request."""
        now = self._now()
        others = [
            other
            for other in self.servers
            if other is not server and other.rests_until <= now and other.busy < EACH
        ]
        return min(others, key=lambda other: other.busy, default=None)

    async def _once(self, server: Server, request: Request) -> dict[str, Array]:
        server.busy += 1
        began = self._now()
        try:
            async with self._client.stream(
                "POST", server.url + PATH, content=_sent(request), headers=request.headers
            ) as reply:
                body = await _received(reply, request.most)
            if reply.status_code != 200:
                raise self._refusal(server, reply, body)
            arrays = arrays_of(request, reply.headers.get(HEADER_LENGTH), body)
        except httpx.ConnectError:
            self._rest(server)
            raise
        except (httpx.TransportError, WrongAnswer) as error:
            self._rest(server)
            raise Failed(f"{server.url}: {_text(error)}") from None
        finally:
            server.busy -= 1
        self._answered = self._now()
        self._seconds.append(self._answered - began)
        server.failures = 0
        return arrays

    def _refusal(self, server: Server, reply: httpx.Response, body: bytes) -> Exception:
        """Error of an answer that is not 200."""
        status, said = reply.status_code, _problem(reply.status_code, body)
        text = str(said.get("detail"))
        if status in (429, 503):
            after = reply.headers.get("Retry-After", "")
            seconds = float(after) if after.isdecimal() else _REST
            server.rests_until = self._now() + min(seconds, PATIENCE)
            return _Busy(text)
        if 400 <= status < 500:
            place = said.get("position")
            position = tuple(place) if isinstance(place, list) else None
            if position is None or said.get("field") is None:
                text = f"{server.url} answers {status}: {text}"
            return InvalidInput(text, field=str(said.get("field")), position=position)
        self._rest(server)
        return Failed(f"{server.url} answers {status}: {text}")

    def _rest(self, server: Server) -> None:
        """Leave ``server`` alone for a while after a failure."""
        server.rests_until = self._now() + min(_REST * 2**server.failures, _LONGEST_REST)
        server.failures += 1

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


async def _sent(request: Request) -> AsyncIterator[bytes]:
    # Copied by a thread: pages of a mapped file may have to be read first, while the loop goes on.
    loop = asyncio.get_running_loop()
    for chunk in request.chunks():
        yield await loop.run_in_executor(None, bytes, chunk)


async def _received(reply: httpx.Response, most: int) -> bytes:
    parts, size = [], 0
    async for part in reply.aiter_bytes():
        size += len(part)
        if size > most:
            raise WrongAnswer(f"it is longer than the {most} bytes that were asked for")
        parts.append(part)
    return b"".join(parts)


def _problem(status: int, body: bytes) -> dict[str, Any]:
    """Problem details of an answer (RFC 9457), with a ``detail`` whatever it is."""
    try:
        said = orjson.loads(body)
    except ValueError:
        said = None
    nothing = body[:200].decode(errors="replace").strip() or f"status {status}"
    return said if isinstance(said, dict) and "detail" in said else {"detail": nothing}


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
