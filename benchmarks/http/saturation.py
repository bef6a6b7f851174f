"""Load on many connections at once, sent by one thread from bytes made beforehand.

The client takes a tenth of the CPU time that a server takes for a request.
"""

from __future__ import annotations

import selectors
import socket
from dataclasses import dataclass

from benchmarks.client import PATIENCE, Answer, Client, Request
from benchmarks.server import Server

_MOST = 2**16  # bytes of an answer


@dataclass
class _Connection:
    socket: socket.socket
    received: bytes = b""


class Crowd:
    """Connections to one server, each of which repeats the same small request."""

    def __init__(self, server: Server, request: Request, connections: int) -> None:
        self._request = request.joined.head
        with Client(server) as client:
            self._answer = client.exchange(request)
        self._selector = selectors.DefaultSelector()
        for _ in range(connections):
            connected = socket.create_connection(server.address, timeout=PATIENCE)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(connected, selectors.EVENT_READ, _Connection(connected))

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.socket.close()
        self._selector.close()

    def exchange(self, count: int) -> Answer:
        """Send ``count`` requests, at most one at a time on a connection.

        Raises ``RuntimeError`` where an answer differs from the first.
        """
        idle = [key.data for key in self._selector.get_map().values()]
        sent = answered = 0
        while answered < count:
            while idle and sent < count:
                idle.pop().socket.sendall(self._request)
                sent += 1
            ready = self._selector.select(PATIENCE)
            if not ready:
                raise RuntimeError("the server answers no more")
            done = [key.data for key, _ in ready if self._answered(key.data)]
            answered += len(done)
            idle += done
        return self._answer

    def _answered(self, connection: _Connection) -> bool:
        piece = connection.socket.recv(_MOST)
        received = connection.received = connection.received + piece
        if not piece or not b"HTTP/1.1 200 OK\r\n".startswith(received[:17]):
            raise RuntimeError(f"answered {received[:500]!r}")
        if not received.endswith(self._answer.body):
            return False
        connection.received = b""
        return True
