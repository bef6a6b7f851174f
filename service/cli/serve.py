"""``lossd serve``: the settings as options, a socket, uvicorn, and a line to paste once ready."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any

import typer

from service import settings
from service.cli import fail, parameters

# uvicorn's status for a failed start: its own supervisor, and others, do not try again on it.
REFUSED = 3

# uvicorn's supervisor kills a worker that has been silent for 5 s, and Numba holds the GIL for
# longer than that while it compiles.
_WORKER_SILENCE_SECONDS = 60

# Numba reads it as it is imported.
_THREADS = "NUMBA_NUM_THREADS"

_PROBES = frozenset({"/healthz", "/readyz"})


def no_probes() -> Callable[[logging.LogRecord], bool]:
    """A filter of uvicorn's access log: who asks every second whether we live is not logged."""

    def keep(record: logging.LogRecord) -> bool:
        return not (isinstance(record.args, tuple) and record.args[2] in _PROBES)

    return keep


def _handler(formatter: str, **more: Any) -> dict[str, Any]:
    # Not stdout, which is for the line to paste.
    return {
        "class": "logging.StreamHandler",
        "stream": "ext://sys.stderr",
        "formatter": formatter,
        **more,
    }


_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"no_probes": {"()": "service.cli.serve.no_probes"}},
    "formatters": {
        "messages": {
            "()": "uvicorn.logging.DefaultFormatter",
            "fmt": "%(asctime)s %(levelprefix)s %(message)s",
        },
        "requests": {
            "()": "uvicorn.logging.AccessFormatter",
            "fmt": '%(asctime)s %(levelprefix)s %(client_addr)s "%(request_line)s" %(status_code)s',
        },
    },
    "handlers": {
        "messages": _handler("messages"),
        "requests": _handler("requests", filters=["no_probes"]),
    },
    "loggers": {
        "uvicorn": {"handlers": ["messages"], "level": "INFO", "propagate": False},
        "uvicorn.access": {"handlers": ["requests"], "level": "INFO", "propagate": False},
    },
}


def command(**given: str | None) -> None:
    """Serve the loss over HTTP.

    Every option can also be given in the environment, under the name that stands with it. Options
    win.
    """
    import uvicorn

    chosen = _settings({name: value for name, value in given.items() if value is not None})
    listening = _bind(chosen.host, chosen.port)
    # The workers are spawned, and each makes its application from the environment.
    os.environ.update(environment(chosen, os.environ))
    config = uvicorn.Config(
        "service.app:create_app",
        factory=True,
        workers=chosen.workers,
        log_config=_LOGGING,
        log_level=chosen.log_level,
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=chosen.shutdown_seconds,
        timeout_worker_healthcheck=_WORKER_SILENCE_SECONDS,
    )
    # uvicorn shuts down on it and then raises it again: to stop as told is no failure.
    signal.signal(signal.SIGTERM, _exit)
    threading.Thread(target=_greet, args=listening.getsockname()[:2], daemon=True).start()
    try:
        started = (_run_workers if chosen.workers > 1 else _run)(config, listening)
    except KeyboardInterrupt:
        return
    if not started:
        raise typer.Exit(REFUSED)


def environment(chosen: settings.Settings, present: Mapping[str, str]) -> dict[str, str]:
    """What the workers read: the settings and, unless ``present`` has it, their share of cores."""
    made = chosen.environment()
    if chosen.workers > 1 and _THREADS not in present:
        affinity = getattr(os, "sched_getaffinity", None)  # not on macOS, nor on Windows
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        made[_THREADS] = str(max(1, cores // chosen.workers))
    return made


def _run(config: Any, listening: socket.socket) -> bool:
    import uvicorn

    server = uvicorn.Server(config)
    server.run(sockets=[listening])
    return server.started


def _run_workers(config: Any, listening: socket.socket) -> bool:
    from uvicorn.supervisors import Multiprocess

    supervisor = Multiprocess(config, sockets=[listening])
    supervisor.run()
    return all(process.exitcode != REFUSED for process in supervisor.processes)


def _exit(*_: Any) -> None:
    raise SystemExit(0)


def _settings(given: dict[str, str]) -> settings.Settings:
    try:
        return settings.load(**given)
    except settings.SettingsError as error:
        message = str(error)
        for name in given:
            message = message.replace(
                f"{settings.variable(name)} is", f"{parameters.option(name)} is"
            )
        raise fail(message, REFUSED) from None


def _bind(host: str, port: int) -> socket.socket:
    """A socket bound at once: before anything is compiled, since the port may well be taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, UnicodeError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or "not the name of a host"
        raise fail(f"cannot listen on {host} port {port}: {reason}", REFUSED) from None
    return listening


def _greet(host: str, port: int) -> None:
    """Wait until the service answers that it is ready, then print a request to paste."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    while not _ready(here, port):
        time.sleep(0.1)
    typer.echo(greeting(here, port))


def greeting(host: str, port: int) -> str:
    """What is printed once the service is ready: where it is, and a request to paste."""
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    body = json.dumps({"logits": [[1, 3, 2, 3, 0]], "labels": [3]})
    return (
        f"\nlossd is ready on {url}, its documentation on {url}/docs. To try it:\n\n"
        f"  curl {url}/v1/cross_entropy -H 'Content-Type: application/json' -d '{body}'\n"
    )


def _ready(host: str, port: int) -> bool:
    connection = HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


parameters.add(command, settings.Settings, settings.Settings.model_fields, settings.variable)
