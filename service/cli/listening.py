"""Listening socket, bound before anything is compiled: its address may be in use."""

from __future__ import annotations

import ctypes
import ipaddress
import logging
import os
import socket
import ssl
import stat
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from service.cli import fail
from service.process import START_FAILED
from service.settings import Settings, variable

# Connections that may wait to be accepted: all clients may connect at once.
BACKLOG = 2048

# Bytes of a Unix socket's path, less the NUL that ends it.
_LONGEST_PATH = 107 if sys.platform == "linux" else 103

_log = logging.getLogger("uvicorn.lossd")


# SO_ATTACH_FILTER of asm-generic/socket.h, which Python has no name for.
_ATTACH_FILTER = 26
# BPF program (linux/filter.h): load the flags of the TCP header, drop the packet if SYN is set.
_NO_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


@dataclass(frozen=True, slots=True)
class Listener:
    """Listening socket; ``file`` identifies the file of a Unix socket (device, inode, time)."""

    socket: socket.socket
    path: str | None = None
    file: tuple[int, int, int] | None = None

    @property
    def address(self) -> Any:
        """The path of a Unix socket, or the host and the port of a TCP socket."""
        return self.path or self.socket.getsockname()

    def shut(self) -> None:
        """Have the system take no new connections; those that wait can still be accepted.

        For TCP that needs Linux: elsewhere, connections that come until the socket is closed are
        reset then.
        """
        if self.path is not None:
            # By now it may be another server's.
            if self.file is not None and self.file == _identity(self.path):
                os.unlink(self.path)
        elif sys.platform == "linux" and self.socket.fileno() >= 0:
            program = ctypes.create_string_buffer(
                b"".join(struct.pack("HBBI", *step) for step in _NO_SYN)
            )
            option = struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
            with suppress(OSError):  # a sandbox may have no filters
                self.socket.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, option)


@contextmanager
def listening(chosen: Settings) -> Iterator[Listener]:
    """Listen on the address of ``chosen``; a Unix socket's file is removed at the end.

    Its permissions are those that the umask leaves: by default, only the same user may connect.
    """
    if chosen.uds is None:
        with _tcp(chosen) as made:
            yield Listener(made)
        return
    # Absolute, so that the name still holds should the process change its folder.
    absolute = os.path.abspath(chosen.uds)
    path = absolute if _path_fault(absolute) is None else chosen.uds
    with _unix(path) as made:
        listener = Listener(made, path, _identity(path))
        try:
            yield listener
        finally:
            listener.shut()


def _tcp(chosen: Settings) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in chosen.host else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((chosen.host, chosen.port))
        # At once, or a second server could bind it as well.
        made.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        made.close()
        reason = getattr(error, "strerror", None) or "not the name of a host"
        raise fail(
            f"cannot listen on {chosen.host} port {chosen.port}: {reason}", START_FAILED
        ) from None
    return made


def _unix(path: str) -> socket.socket:
    fault = _path_fault(path)
    if fault is not None:
        raise fail(f"cannot listen on the Unix socket of LOSSD_UDS: {fault}", START_FAILED)
    made = socket.socket(socket.AF_UNIX)
    try:
        with _one_server(os.path.dirname(path) or "."):
            _remove_stale(path)
            made.bind(path)
            made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise fail(f"cannot listen on {path}: {error.strerror or error}", START_FAILED) from None
    return made


def _path_fault(path: str) -> str | None:
    size = len(os.fsencode(path))
    if size > _LONGEST_PATH:
        return f"its path has {size} bytes, and {_LONGEST_PATH} are the most"
    if "\0" in path:
        return "its path holds a NUL character"
    return None


@contextmanager
def _one_server(folder: str) -> Iterator[None]:
    """Lock ``folder``: no other server looks for a stale socket there until this one listens."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # 2.5 s at most: a process that holds the lock for longer is no server that starts.
        for _ in range(50):
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: str) -> None:
    """Remove the socket at ``path`` if no process has it bound: its server was killed."""
    with suppress(FileNotFoundError), socket.socket(socket.AF_UNIX) as probe:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        probe.setblocking(False)  # one that listens may have its hands full
        try:
            probe.connect(path)
        except BlockingIOError:
            pass
        except ConnectionRefusedError:
            # A process may have bound it, and not listen yet.
            if not any(_same_file(bound, path) for bound in _bound_paths()):
                os.unlink(path)


def _bound_paths() -> list[str]:
    """List the paths that processes have bound, as they wrote them, where the system tells."""
    try:
        # Seven fields, then the path.
        lines = Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()[1:]
    except OSError:
        return []
    return [fields[7] for line in lines if len(fields := line.split(None, 7)) == 8]


def _same_file(bound: str, path: str) -> bool:
    if not os.path.isabs(bound):
        # Relative to an unknown folder: rather refuse than remove another server's.
        return os.path.basename(bound) == os.path.basename(path)
    with suppress(OSError):
        return os.path.samefile(bound, path)
    return False


def _identity(path: str) -> tuple[int, int, int] | None:
    """Identify the file at ``path``: its inode may be used again, but not at the same time."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


def report_mode(listener: Listener) -> None:
    """Log the users who may connect to a Unix socket."""
    if listener.path is None:
        return
    try:
        mode = stat.S_IMODE(os.stat(listener.path).st_mode)
    except OSError:  # somebody has removed it
        return
    where = f"the Unix socket {listener.path} has the mode {mode:04o}, which the umask has left"
    if mode & stat.S_IWOTH:
        _log.warning("%s: every user of this machine may connect", where)
    else:
        who = "its user and its group" if mode & stat.S_IWGRP else "its user alone"
        _log.info("%s: %s may connect", where, who)


def is_open(address: object) -> bool:
    """Tell whether other machines can reach a socket that is bound to ``address``."""
    return isinstance(address, tuple) and not ipaddress.ip_address(address[0]).is_loopback


def is_ready(address: object, *, tls: bool = False) -> bool:
    """Tell whether ``/readyz`` of the server that is bound to ``address`` answers 200."""
    connection = _Connection(address, tls)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def health_check(environment: Mapping[str, str]) -> int:
    """Exit status of a container's health check: 0 if the server of ``environment`` is ready."""
    address: object = environment.get(variable("uds"))
    if address is None:
        address = "127.0.0.1", int(environment.get(variable("port"), "8000"))
    return 0 if is_ready(address, tls=variable("tls_certificate") in environment) else 1


class _Connection(HTTPConnection):
    """HTTP client connection over TCP or a Unix socket, by the kind of ``address``.

    With ``tls`` it does not verify the certificate, which is this server's own.
    """

    def __init__(self, address: object, tls: bool) -> None:
        host, port = address[:2] if isinstance(address, tuple) else ("localhost", None)
        super().__init__(host, port, timeout=5)
        self._path = None if isinstance(address, tuple) else str(address)
        self._tls = tls

    def connect(self) -> None:
        if self._path is None:
            super().connect()
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock)


def check_certificate(chosen: Settings) -> None:
    """End the command where the TLS files of ``chosen`` cannot be used."""
    certificate, key = chosen.tls_certificate, chosen.tls_key
    if certificate is None:
        if key is not None:
            raise fail("LOSSD_TLS_KEY is set without LOSSD_TLS_CERTIFICATE", START_FAILED)
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password nothing asks for one on the terminal: an encrypted key is refused.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError too
        why = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        files = certificate if key is None else f"{certificate} and {key}"
        raise fail(
            f"LOSSD_TLS_CERTIFICATE: {files} cannot be used: {why or error}; a certificate and an"
            " unencrypted key in PEM are needed",
            START_FAILED,
        ) from None
