"""The socket to listen on, bound before anything is compiled: what it is to be may be taken."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException

from service.cli import REFUSED, fail
from service.settings import Settings

# Connections that may wait to be accepted: they come in bursts of as many as there are clients.
BACKLOG = 2048


@contextmanager
def listening(chosen: Settings) -> Iterator[socket.socket]:
    """A socket that listens where ``chosen`` says; a Unix socket's file is removed at the end.

    Its permissions are what the umask leaves: by default, only the same user may connect.
    """
    if chosen.uds is None:
        with _bound(socket.AF_INET6 if ":" in chosen.host else socket.AF_INET, chosen) as made:
            yield made
        return
    with _bound(socket.AF_UNIX, chosen) as made:
        own = _identity(chosen.uds)
        try:
            yield made
        finally:
            # By now it may be another server's.
            if own == _identity(chosen.uds):
                os.unlink(chosen.uds)


def _bound(family: socket.AddressFamily, chosen: Settings) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if chosen.uds is None:
            where = f"{chosen.host} port {chosen.port}"
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((chosen.host, chosen.port))
        else:
            where = chosen.uds
            _remove_stale(chosen.uds)
            made.bind(chosen.uds)
        # At once, or a second server could bind it as well, and take a Unix socket for a stale one.
        made.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        made.close()
        reason = getattr(error, "strerror", None) or (
            "not the name of a host" if chosen.uds is None else str(error)
        )
        raise fail(f"cannot listen on {where}: {reason}", REFUSED) from None
    return made


def _remove_stale(path: str) -> None:
    """Remove the socket that a server left at ``path`` when it was killed: nobody listens there."""
    with suppress(FileNotFoundError), socket.socket(socket.AF_UNIX) as probe:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        probe.setblocking(False)  # one that listens may have its hands full
        try:
            probe.connect(path)
        except BlockingIOError:
            pass
        except ConnectionRefusedError:
            os.unlink(path)


def _identity(path: str) -> tuple[int, int, int] | None:
    """What tells the file at ``path`` from others: inodes are used again, but not their times."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


def is_open(address: object) -> bool:
    """Whether others than this machine's users can reach what is bound to ``address``."""
    return isinstance(address, tuple) and not ipaddress.ip_address(address[0]).is_loopback


def is_ready(address: object) -> bool:
    """Whether ``/readyz`` of the server that is bound to ``address`` answers 200."""
    connection = _Connection(address)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


class _Connection(HTTPConnection):
    """HTTP over TCP or a Unix socket, as the address is one of either's."""

    def __init__(self, address: object) -> None:
        host, port = address[:2] if isinstance(address, tuple) else ("localhost", None)
        super().__init__(host, port, timeout=5)
        self._path = None if isinstance(address, tuple) else str(address)

    def connect(self) -> None:
        if self._path is None:
            return super().connect()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
