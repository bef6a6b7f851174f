"""Limits of a connection in bytes and seconds, and checks of a request's header and chunks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.errors import HeaderTooLarge, MalformedRequest, Overloaded
from service.settings import Settings

# uri-host [":" port] of RFC 9110: a URL made of it can be read in one way only. Possessive, since
# backtracking takes 4 ms for the longest one that a header may hold.
_HOST = re.compile(
    rb"(\[[0-9A-Fa-f:.]++\]|([A-Za-z0-9._~!$&'()*+,;=-]++|%[0-9A-Fa-f]{2})*+)(:[0-9]{0,5})?"
)

_CODING = b"transfer-encoding"

# Chunks that a body may have whatever their size, as in Triton. More of less than 1 KiB each are an
# attack on the time that parsing takes.
_CHUNKS = 65_536
_CHUNK_BYTES = 1024
# Bytes that a chunk's size and line ends may take; the rest is padding, which no client sends.
_CHUNK_HEADER = 32

# Connections above the limit are refused at their first request, for 1 / REFUSED_PART more of them,
# and beyond those at once.
REFUSED_PART = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one connection, in bytes and seconds."""

    header_seconds: float = 10
    header_bytes: int = 2**15
    header_count: int = 100
    body_bytes_per_second: float = 2**16
    body_grace_seconds: float = 10
    send_seconds: float = 30
    # After an answer that came before the request's end, what still comes is read and discarded, up
    # to these, so that the client can read the answer.
    linger_bytes: int = 2**26
    linger_seconds: float = 5
    # At a shutdown, an idle connection is left open this long for a request that is on its way.
    last_idle_seconds: float = 5

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            header_seconds=settings.header_seconds,
            header_bytes=settings.header_bytes,
            header_count=settings.header_count,
            body_bytes_per_second=settings.body_bytes_per_second,
            send_seconds=settings.send_seconds,
            # 5 of the 25 s of the default: time is left for that request's answer.
            last_idle_seconds=settings.shutdown_seconds / 5,
        )

    @property
    def look_seconds(self) -> float:
        """Seconds between two looks at the deadlines: a quarter of the shortest, 0.5 at most."""
        shortest = min(
            self.header_seconds, self.body_grace_seconds, self.send_seconds, self.linger_seconds
        )
        return min(0.5, shortest / 4)


def body_length(
    version: str,
    method: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    fields: Mapping[bytes, bytes],
    most: int,
) -> int | None:
    """Return the bytes of the body after ``headers``, or ``None`` where it is in chunks.

    Names of ``headers`` are lower case; ``fields`` are the same by name. Raises
    ``MalformedRequest``, and ``HeaderTooLarge`` for more than ``most`` fields.
    """
    if len(headers) > most:
        raise HeaderTooLarge(f"a header may have at most {most:,} fields, not {len(headers):,}")
    if version not in ("1.0", "1.1"):
        raise MalformedRequest("HTTP/1.1 is spoken here")
    if method == b"CONNECT":
        raise MalformedRequest("this server is no proxy: CONNECT is not for it")
    # One number, and the only one: the parser refuses others.
    length: int | None = int(fields.get(b"content-length", 0))
    hosts = [fields[b"host"]] if b"host" in fields else []
    codings = [fields[_CODING]] if _CODING in fields else []
    if len(fields) != len(headers):
        hosts = [value for name, value in headers if name == b"host"]
        codings = [value for name, value in headers if name == _CODING]
    for coding in codings:
        if version == "1.0" or coding.lower() != b"chunked":
            raise MalformedRequest(
                "Transfer-Encoding must be chunked, and the request HTTP/1.1",
                field="transfer-encoding",
            )
        length = None
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        raise MalformedRequest(f"one Host is needed, not {len(hosts)}", field="host")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise MalformedRequest("Host is not the name of a host", field="host")
    return length


@dataclass(slots=True)
class Chunks:
    """Count of what has come of a body in chunks, which may have ``padding`` bytes of padding.

    That is chunk extensions and trailers. Raises ``MalformedRequest`` for more of it, and for too
    many small chunks.
    """

    padding: int
    _count: int = 0
    _data: int = 0
    _size: int = 0

    @property
    def small(self) -> bool:
        """True if the chunks are so small that a byte takes many times longer to parse."""
        return self._count * _CHUNK_BYTES > self._data

    def begun(self) -> None:
        self._count += 1
        if self._count > _CHUNKS + self._data // _CHUNK_BYTES:
            raise MalformedRequest(
                f"more than {_CHUNKS:,} chunks, of less than {_CHUNK_BYTES:,} bytes: send larger"
                " ones"
            )

    def held(self, count: int) -> None:
        self._data += count

    def read(self, count: int) -> None:
        """Count ``count`` bytes of data and of what is around it."""
        self._size += count
        if self._size - self._data > self.padding + self._count * _CHUNK_HEADER:
            raise MalformedRequest("chunk extensions and trailers are larger than a header may be")


def overloaded(most: int) -> Overloaded:
    return Overloaded(
        f"this server has {most:,} connections, as many as it can serve: this one is closed"
    )
