"""Command ``lossd serve``: settings as options, a socket, uvicorn, a greeting once ready."""

from __future__ import annotations

import json
import logging
import os
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import typer

from service import settings
from service.cli import fail, logs, parameters, progress, signals
from service.cli.listening import (
    BACKLOG,
    Listener,
    check_certificate,
    is_open,
    is_ready,
    listening,
    report_mode,
)
from service.process import START_FAILED, cores, levels, numba_variables, openmp

# Seconds that a worker may be silent before it is killed. uvicorn's default is 5, and Numba holds
# the GIL for longer while it compiles.
_WORKER_SILENCE_SECONDS = 60

# Read by Numba as it is imported.
_THREADS = "NUMBA_NUM_THREADS"

_log = logging.getLogger("uvicorn.lossd")


def command(**given: str | bool | None) -> None:
    """Serve the loss over HTTP.

    Every option can also be given in the environment, under the name that stands with it. Options
    win.
    """
    with signals.ending_with_success() as last:
        chosen = _settings({name: str(value) for name, value in given.items() if value is not None})
        wrong = numba_variables.fault(os.environ)
        if wrong is not None:
            raise fail(wrong, START_FAILED)
        check_certificate(chosen)
        with listening(chosen) as listener:
            last.append(listener.shut)
            # The workers are spawned, and each makes its application from the environment.
            os.environ.update(environment(chosen, os.environ))
            status = _serve(chosen, listener)
    if status:
        raise typer.Exit(status)


def _serve(chosen: settings.Settings, listener: Listener) -> int:
    # Not for the help, nor for settings that are refused: these imports take long.
    import uvicorn

    from service.cli import metrics_port, workers
    from service.cli.descriptors import most_connections
    from service.cli.server import Server
    from service.protocol import Http, Limits
    from service.telemetry import counters
    from service.telemetry.memory import Table

    config = uvicorn.Config(
        "service.cli.serve:application",
        factory=True,
        workers=chosen.workers,
        log_config=logs.config(chosen.log_format),
        log_level=chosen.log_level,
        http=cast(Any, Http(Limits.of(chosen))),  # uvicorn calls it as it would a class
        ws="none",
        access_log=False,  # ``service.cli.access_log`` has its own
        server_header=False,
        proxy_headers=False,  # ``middleware.forwarded`` has its own, for both kinds of fields
        backlog=BACKLOG,
        limit_concurrency=most_connections(chosen.workers),
        timeout_keep_alive=chosen.keep_alive_seconds,
        timeout_graceful_shutdown=chosen.shutdown_seconds,
        timeout_worker_healthcheck=_WORKER_SILENCE_SECONDS,
        ssl_certfile=chosen.tls_certificate,
        ssl_keyfile=chosen.tls_key,
    )
    secured = bool(chosen.auth_tokens or chosen.auth_token_file)
    if is_open(listener.address) and not secured:
        _log.warning("without tokens, whoever can reach %s is answered", chosen.host)
    report_mode(listener)
    # Python would write its warnings on stderr itself, and block where that is not read.
    logging.captureWarnings(True)
    tls = chosen.tls_certificate is not None
    table = Table()
    metrics_port.start(chosen, table)
    greet = partial(_print, greeting(listener.address, secured=secured, tls=tls))
    if chosen.workers > 1:
        return workers.run(config, listener, greet, table, chosen.drain_seconds)
    counters.use(table, table.assign())
    threading.Thread(target=_greet, args=(listener.address, tls, greet), daemon=True).start()
    server = Server(config, listener.shut, chosen.drain_seconds)
    server.run(sockets=[listener.socket])
    return 0 if server.started else START_FAILED


def application() -> Any:
    """Make the application of this process, or end it with the status ``START_FAILED``."""
    try:
        # Here, so that an import that fails is reported too.
        from service.app import create_app

        made = create_app(told=progress.bar())
        _log_requests(settings.load())
        return made
    except settings.SettingsError as error:
        _log.critical("%s", error)
    except Exception as error:
        known = numba_variables.behind(error)
        unknown = f"the application cannot be made{numba_variables.named(os.environ)}"
        _log.critical("%s", known or unknown, exc_info=known is None)
    raise SystemExit(START_FAILED)


def _log_requests(chosen: settings.Settings) -> None:
    if not chosen.access_log or chosen.log_level not in ("info", "debug"):
        return
    from service.cli import access_log
    from service.middleware import auth
    from service.telemetry import record

    access_log.redact(auth.tokens(chosen))
    record.observers.append(access_log.observer(chosen.log_format))


def environment(chosen: settings.Settings, present: Mapping[str, str]) -> dict[str, str]:
    """Return the workers' environment: settings, threads and CPU; what is ``present`` wins.

    Each worker has its share of the cores, and the threads of a kernel sleep once it is done.
    Spinning took 43 % of the samples while a body of 256 MB was received and computed, and a third
    of its speed.
    """
    made = chosen.environment()
    if openmp.VARIABLE not in present:
        made[openmp.VARIABLE] = openmp.ASLEEP
    if _THREADS not in present:
        made[_THREADS] = str(max(1, cores.available() // chosen.workers))
    return {**levels.environment(present), **made}


def _settings(given: dict[str, str]) -> settings.Settings:
    try:
        return settings.load(**given)
    except settings.SettingsError as error:
        message = str(error)
        for name in given:
            variable, option = settings.variable(name), parameters.option(name)
            message = message.replace(f"{variable} is", f"{option} is")
        raise fail(message, START_FAILED) from None


def _greet(address: Any, tls: bool, greet: Callable[[], None]) -> None:
    while not is_ready(_near(address), tls=tls):
        time.sleep(0.1)
    greet()


def _print(text: str) -> None:
    """Write a line to stdout in a thread, so that nothing waits if it is not read."""
    threading.Thread(target=logs.write, args=(1, f"{text}\n"), daemon=True).start()


def greeting(address: Any, *, secured: bool = False, tls: bool = False) -> str:
    """Return the text to print once ready: the service's address, and a request to paste."""
    scheme, curl = ("https", "curl --insecure") if tls else ("http", "curl")
    if isinstance(address, str):
        url, where = (
            f"{scheme}://localhost",
            f"the Unix socket {address}, its documentation on /docs",
        )
        curl += f" --unix-socket {shlex.quote(address)}"
    else:
        host, port = _near(address)
        url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        where = f"{url}, its documentation on {url}/docs"
    token = " -H 'Authorization: Bearer TOKEN'" if secured else ""
    body = json.dumps({"logits": [[1, 3, 2, 3, 0]], "labels": [3]})
    return (
        f"\nlossd is ready on {where}. To try it:\n\n"
        f"  {curl} {url}/v1/cross_entropy{token} -H 'Content-Type: application/json' -d '{body}'\n"
    )


def _near(address: Any) -> Any:
    """Return the address at which this machine reaches a socket bound to ``address``."""
    if isinstance(address, str):
        return address
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0]), address[1]


_PANELS = {
    "Address": ("host", "port", "uds", "root_path", "tls_certificate", "tls_key"),
    "Access": (
        "auth_token_file",
        "trusted_proxies",
        "cors_origins",
        "allow_shared_memory",
        "shared_memory_prefix",
    ),
    "Processes": ("workers", "shutdown_seconds", "drain_seconds"),
    "Log and metrics": (
        "log_level",
        "log_format",
        "access_log",
        "metrics_port",
        "metrics_host",
        "metrics_aliases",
    ),
    "Connections": (
        "header_seconds",
        "header_bytes",
        "header_count",
        "body_bytes_per_second",
        "send_seconds",
        "keep_alive_seconds",
    ),
    "Computing": (
        "device",
        "device_memory_bytes",
        "dtypes",
        "compute_seconds",
        "compile_seconds",
        "lane_queue",
    ),
}
_PANEL_OF = {name: panel for panel, names in _PANELS.items() for name in names}

_OPTIONS = [name for name in settings.Settings.model_fields if name not in settings.SECRETS]
# By panel, in the order of the table: Typer shows panels as their first options come.
_OPTIONS.sort(key=lambda name: [*_PANELS, None].index(_PANEL_OF.get(name)))
parameters.add(
    command,
    settings.Settings,
    _OPTIONS,
    settings.variable,
    panel=lambda name: _PANEL_OF.get(name, "Sizes and memory"),
)
