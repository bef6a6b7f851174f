"""HTTP client of the benchmarks: a socket that sends bytes made beforehand."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.server import Server

Piece: TypeAlias = bytes | memoryview

PATIENCE = 120.0  # seconds until a server that hangs fails the benchmark
_PIECE = 2**16


@dataclass(frozen=True)
class Answer:
    """An answer; the names of ``headers`` are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Request:
    """A request; the pieces of its body are sent one by one, without being joined."""

    head: bytes
    body: Sequence[Piece]

    @property
    def joined(self) -> Request:
        """The same request in one piece, so that a small one takes one system call."""
        return Request(b"".join([self.head, *self.body]), ())


def post(path: str, body: Sequence[Piece], length: int | None = None, **headers: str) -> Request:
    """A POST request; ``length``, where given, is declared in place of the body's real length."""
    size = sum(map(len, body)) if length is None else length
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"POST {path} HTTP/1.1", "Host: lossd", f"Content-Length: {size}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return Request("\r\n".join([*lines, "", ""]).encode(), body)


def get(path: str) -> Request:
    """A GET request."""
    return Request(f"GET {path} HTTP/1.1\r\nHost: lossd\r\n\r\n".encode(), ())


def parsed_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer, from its bytes up to the empty line."""
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    fields = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in fields}


class Client:
    """A keep-alive connection."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(server.address, timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def send(self, request: Request) -> None:
        """Send the request. Raises ``OSError`` where the server closes the connection."""
        self._socket.sendall(request.head)
        for piece in request.body:
            self._socket.sendall(piece)

    def exchange(self, request: Request) -> Answer:
        """Send the request and receive its answer.

        Raises ``OSError`` where the server closes the connection.
        """
        self.send(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        status, headers = parsed_head(head)
        length = int(headers.get("content-length", 0))
        while len(body) < length:
            body += self._more()
        return Answer(status, headers, body)

    def _more(self) -> bytes:
        piece = self._socket.recv(_PIECE)
        if not piece:
            raise ConnectionResetError("the server closed the connection without an answer")
        return piece
