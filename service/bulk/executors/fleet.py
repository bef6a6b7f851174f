"""Fleet of lossd servers: whom a request is sent to, again if it fails, twice if it is slow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from statistics import median

import httpx2 as httpx

from kernels import InvalidInput
from service.bulk.executors.inference import (
    HEADER_LENGTH,
    PATH,
    Request,
    WrongAnswer,
    arrays_of,
)
from service.bulk.executors.server import Server, problem_of, text_of, unreached
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


class Fleet:
    """Servers that answer the same requests, to the same bits.

    Of an event loop. ``hedged`` is how many requests were sent to a second server, ``repeated`` how
    many were sent again after a failure; ``lost`` says why no more can be, if so.
    """

    def __init__(self, servers: list[Server], token: str | None) -> None:
        self.servers = servers
        self.hedged = self.repeated = 0
        self.lost = ""
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
        reasons = await asyncio.gather(*(unreached(self._client, one) for one in self.servers))
        for server, reason in zip(self.servers, reasons, strict=True):
            if reason is not None:
                self._rest(server)
        if all(reasons):
            raise InvalidOption("; ".join(map(str, reasons)), field="servers")

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
                self.lost = f"no server has answered for {PATIENCE:.0f} seconds"
                raise Failed(self.lost)
            soonest = min(server.rests_until for server in self.servers)
            await asyncio.sleep(max(soonest - now, 0.001))

    async def _raced(self, server: Server, request: Request) -> dict[str, Array]:
        """Send ``request``, to a second server too where the first is slow; the first answer."""
        tasks = [self._sent(server, request)]
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
                    tasks.append(self._sent(other, request))
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

    def _sent(self, server: Server, request: Request) -> asyncio.Task[dict[str, Array]]:
        """Task that sends ``request`` to ``server``, which is busy from now on."""

        def ended(_: object) -> None:
            server.busy -= 1

        server.busy += 1
        task = asyncio.create_task(self._once(server, request))
        task.add_done_callback(ended)
        return task

    async def _once(self, server: Server, request: Request) -> dict[str, Array]:
        began = self._now()
        try:
            async with self._client.stream(
                "POST", server.url + PATH, content=_chunks(request), headers=request.headers
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
            raise Failed(f"{server.url}: {text_of(error)}") from None
        self._answered = self._now()
        self._seconds.append(self._answered - began)
        server.failures = 0
        return arrays

    def _refusal(self, server: Server, reply: httpx.Response, body: bytes) -> Exception:
        """Error of an answer that is not 200."""
        status, said = reply.status_code, problem_of(reply.status_code, body)
        text = str(said.get("detail"))
        if status in (429, 503):
            after = reply.headers.get("Retry-After", "")
            seconds = float(after) if after.isdecimal() else _REST
            server.rests_until = self._now() + min(max(seconds, _REST), PATIENCE)
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


async def _chunks(request: Request) -> AsyncIterator[bytes]:
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
