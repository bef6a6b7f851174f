"""Upper bound: a server that receives bodies into warm memory and does nothing with them.

``python -m benchmarks.http.sink BYTES`` prints its address and takes bodies of at most that many
bytes, one connection at a time.
"""

from __future__ import annotations

import mmap
import signal
import socket
import sys
from contextlib import suppress

from benchmarks.client import parsed_head

_HEAD = 2**16


def _receive(connection: socket.socket, memory: memoryview) -> None:
    """Answer each request with its body's length, until the client disconnects."""
    while True:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = connection.recv(_HEAD)
            if not piece:
                return
            received += piece
        head, _, begun = received.partition(b"\r\n\r\n")
        # The parser is that of answers, whose first line holds a status in place of a path.
        _, headers = parsed_head(b"- 0\r\n" + head.partition(b"\r\n")[2])
        length = int(headers["content-length"])
        memory[: len(begun)] = begun
        filled = len(begun)
        while filled < length:
            count = connection.recv_into(memory[filled:length])
            if not count:
                return
            filled += count
        answer = str(filled).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)


def main() -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pages = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # Huge pages where the system offers them, as in the service.
    with suppress(AttributeError, OSError):
        pages.madvise(mmap.MADV_HUGEPAGE)
    memory = memoryview(pages)
    for start in range(0, len(memory), mmap.PAGESIZE):
        memory[start] = 1
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"ready on http://127.0.0.1:{listening.getsockname()[1]},", flush=True)
        while True:
            connection, _ = listening.accept()
            with connection, suppress(ConnectionError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _receive(connection, memory)


if __name__ == "__main__":
    main()
