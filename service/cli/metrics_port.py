"""Port for metrics alone, without tokens: a thread of the process that started all others.

So it answers while the event loops are busy, while workers start, and until the process ends.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from service.cli import fail
from service.process import START_FAILED
from service.settings import Settings
from service.telemetry import exposition
from service.telemetry.memory import Table

# Seconds that a client may be silent, and clients that are answered at a time.
_SILENCE = 5.0
_CLIENTS = 16

_log = logging.getLogger("uvicorn.lossd")


def start(chosen: Settings, table: Table) -> None:
    """Serve the metrics of ``table`` where the settings name a port for that, until the end.

    Ends the command where it cannot listen there.
    """
    if chosen.metrics_port is None:
        return
    host = chosen.metrics_host or chosen.host
    try:
        server = _Server((host, chosen.metrics_port), table, chosen.metric_aliases())
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not the name of a host"
        where = f"{host} port {chosen.metrics_port}"
        raise fail(f"cannot listen on {where} for metrics: {reason}", START_FAILED) from None
    _log.info("metrics on http://%s:%d/metrics", host, server.server_address[1])
    threading.Thread(target=server.serve_forever, name="lossd-metrics", daemon=True).start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], table: Table, aliases: Sequence[str]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.table = table
        self.aliases = aliases
        self._free = threading.BoundedSemaphore(_CLIENTS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking for the host's name, which may take seconds."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: a client that goes or is silent is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENCE

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "the metrics are at /metrics")
            return
        accept = ", ".join(self.headers.get_all("accept", []))
        text, media_type = exposition.text(self.server.table, accept, self.server.aliases)
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing: it is asked every few seconds."""

    def version_string(self) -> str:
        return "lossd"
