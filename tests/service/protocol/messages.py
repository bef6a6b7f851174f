"""Requests as bytes, and what an HTTP client makes of the answers."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator

CHUNKED = "Transfer-Encoding: chunked"


class Answers:
    """HTTP client's reading of ``Wire.sent``: a status, headers and a body an answer."""

    def __init__(self, sent: bytes) -> None:
        self.statuses: list[int] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        while sent:
            head, _, sent = sent.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines)
            length = int(fields.get("content-length", 0))
            assert len(sent) >= length
            self.statuses.append(int(first.split(" ")[1]))
            self.headers.append(fields)
            self.bodies.append(sent[:length])
            sent = sent[length:]


def without_ids(sent: bytes) -> bytes:
    """``sent`` without X-Request-ID, which is another one for each request."""
    return re.sub(rb"x-request-id: [0-9a-f-]+\r\n", b"", sent)


def request(*fields: str, body: bytes = b"", line: str = "POST / HTTP/1.1") -> bytes:
    """A request of ``fields`` and, unless they say otherwise, Host and Content-Length."""
    names = {field.partition(":")[0].lower() for field in fields}
    lines = [line, *fields]
    if "host" not in names:
        lines.append("Host: lossd")
    if body and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(pieces: Iterable[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    coded = [b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces]
    return b"".join(coded) + b"0\r\n" + trailers + b"\r\n"


def cuts(data: bytes, seed: int) -> Iterator[list[bytes]]:
    """``data`` whole, in random pieces, and byte by byte (its first 3000 and last 100 bytes)."""
    rng = random.Random(seed)
    places = sorted(rng.randrange(len(data) + 1) for _ in range(6))
    yield [data]
    yield [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    singles = [data[at : at + 1] for at in range(len(data))]
    yield [*singles[:3000], b"".join(singles[3000:-100]), *singles[3000:][-100:]]
