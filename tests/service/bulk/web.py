"""Web server of a folder, with byte ranges or without."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder; ``sent`` counts the bytes of their bodies."""

    protocol_version = "HTTP/1.1"
    ranges = True
    sent = 0

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        status = HTTPStatus.OK
        if asked and self.ranges:
            first, last = int(asked[1]), int(asked[2] or len(content) - 1)
            content, status = content[first : last + 1], HTTPStatus.PARTIAL_CONTENT
        self.send_response(status)
        if asked and self.ranges:
            size = path.stat().st_size
            self.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{size}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        type(self).sent += len(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(folder: Path, *, ranges: bool = True) -> Iterator[tuple[str, type[Handler]]]:
    """Serve ``folder``; yields its URL, and the handler, which has the count."""
    handler = type("Handler", (Handler,), {"ranges": ranges, "sent": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler
        finally:
            server.shutdown()
            thread.join()
