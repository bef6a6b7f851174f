"""Composition only: settings, lanes, routes and errors make the application."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import numba
import numpy as np
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from kernels.compiling import Told
from service import VERSION, routes, settings
from service.compute import device
from service.compute.compiler import Compiler
from service.compute.lane import Lane
from service.memory.budget import Budget
from service.memory.limit import default_budget
from service.middleware import auth
from service.middleware.direct import Direct
from service.middleware.drain import Drain
from service.middleware.forwarded import Forwarded, Trusted
from service.middleware.methods import Methods
from service.middleware.origins import EXPOSED, cors_origins
from service.middleware.prefix import Prefix
from service.process import START_FAILED, numba_variables, shutdown
from service.process.warm_up import warm_up
from service.request.offered import offered_dtypes
from service.request.operation import Service
from service.routes import guide, handlers, openapi
from service.telemetry import spans
from service.telemetry.counters import Counters, here
from service.telemetry.record import observers

# Below uvicorn's own logger, so that these lines have its format, level and place.
_log = logging.getLogger("uvicorn.lossd")


class Application(FastAPI):
    """FastAPI behind middleware of ours: a request that computes passes none of its layers (2 us).

    ``entry`` is called first, and leads to ``FastAPI.__call__``.
    """

    entry: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self.entry(scope, receive, send)


def create_app(
    given: settings.Settings | None = None,
    *,
    warm: Callable[[], object] | None = None,
    fail: Callable[[int], None] = os._exit,
    told: Told | None = None,
) -> FastAPI:
    """Make the ASGI application; without ``given`` its settings come from the environment.

    ``warm`` (``warm_up``, if None) runs in the compute lane once the server has started, and no
    other work is taken until it returns; where it raises, ``fail`` is called with the process's
    exit status. ``told`` is called with the progress of compiling. Raises ``SettingsError`` where
    the environment holds a setting that cannot be used, tokens and the device included.
    """
    chosen = given or settings.load()
    tokens = auth.tokens(chosen)
    auth.warn_of_weak(chosen, tokens)
    computing = device.chosen(chosen)
    stopping = asyncio.Event()
    warm = warm or partial(warm_up, offered_dtypes(chosen), told)
    app = Application(
        title="lossd",
        version=VERSION,
        description=guide.DESCRIPTION,
        lifespan=partial(_lifespan, chosen, computing, stopping, warm, fail),
        openapi_url=None,  # ``service.routes.openapi`` has its own
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Nothing here reports to it, and to find that out takes 6 us.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.stopping = stopping
    app.state.aliases = chosen.metric_aliases()
    app.state.secured = bool(tokens)
    app.state.computing = sorted(routes.ENDPOINTS)
    app.state.v2 = routes.v2.State(chosen)
    for router in routes.ROUTERS:
        app.include_router(router)
    handlers.install(app)
    openapi.install(app, secured=bool(tokens))
    app.add_middleware(Methods)
    app.entry = _entry(app, chosen, tokens)
    return app


def _entry(app: FastAPI, chosen: settings.Settings, tokens: frozenset[str]) -> ASGIApp:
    """Wrap ``app`` in the middleware that the settings ask for; the last one is the first asked."""
    origins = cors_origins(chosen)
    proxies = None if chosen.trusted_proxies is None else Trusted(chosen.trusted_proxies)
    direct = Direct(partial(FastAPI.__call__, app), endpoints=routes.ENDPOINTS)
    entry: ASGIApp = Drain(auth.Gate(direct, tokens) if tokens else direct)
    if origins:
        entry = CORSMiddleware(
            entry,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=EXPOSED,
        )
    if chosen.root_path:
        entry = Prefix(entry, chosen.root_path)
    return entry if proxies is None else Forwarded(entry, proxies)


@asynccontextmanager
async def _lifespan(
    chosen: settings.Settings,
    computing: device.Device,
    stopping: asyncio.Event,
    warm: Callable[[], object],
    fail: Callable[[int], None],
    app: FastAPI,
) -> AsyncIterator[None]:
    """Have the lanes, the memory and the counters of the process, as long as it serves."""
    for name in settings.unknown_variables():
        _log.warning("%s is set, but there is no such setting", name)
    service = Service(
        settings=chosen,
        budget=Budget(
            chosen.memory_bytes or default_budget(chosen.workers), chosen.memory_wait_seconds
        ),
        compute=Lane("lossd-compute", chosen.lane_queue, chosen.compute_seconds),
        transcode=Lane("lossd-transcode", chosen.lane_queue),
        compiler=Compiler(chosen.lane_queue, chosen.compile_seconds),
        device=computing,
    )
    app.state.service = service
    counters = here()
    _gauge(counters, service)

    def begin_stop() -> None:
        stopping.set()
        counters.state("stopping")

    def lengthen() -> None:
        # No connection is added from here on: what still comes is bounded, and was accepted.
        for lane in (service.compute, service.transcode, service.compiler.lane):
            lane.length = sys.maxsize

    # Of several workers, the supervisor says when the drain begins and when it is over.
    drain_seconds = chosen.drain_seconds if chosen.workers == 1 else 0
    stages = shutdown.Stages(drain_seconds, begin_stop, lengthen)
    computing.failed = shutdown.GpuFailure(service, fail).report
    tracing = spans.started()
    if tracing is not None:
        # First: the access log has the trace that it begins.
        observers.insert(0, tracing.observe)
    with (
        shutdown.on_signal(signal.SIGTERM, stages.signalled),
        shutdown.on_signal(shutdown.DRAIN if chosen.workers > 1 else None, stages.drain),
    ):
        warming = asyncio.create_task(_warm(service, counters, warm, fail))
        counting = asyncio.create_task(counters.keep_fresh())
        if chosen.workers > 1:
            # Others that are ready take all the connections meanwhile.
            await _either(warming, stopping)
        yield
    warming.cancel()
    counting.cancel()
    service.compiler.close()
    service.transcode.close()
    service.compute.close()
    if tracing is not None:
        observers.remove(tracing.observe)
        await asyncio.to_thread(tracing.stop)


async def _either(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Wait until ``task`` is done or ``event`` set."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _gauge(counters: Counters, service: Service) -> None:
    """Have ``counters`` read the queues and the memory of ``service``."""
    budget = service.budget
    lanes = {
        "compute": service.compute,
        "transcode": service.transcode,
        "compile": service.compiler.lane,
    }
    gauges = counters.gauges
    for name, lane in lanes.items():
        gauges[f"queue_length.{name}"] = partial(getattr, lane, "waiting")
        # Without a limit, once the server was told to stop.
        gauges[f"queue_limit.{name}"] = lambda: service.settings.lane_queue
    gauges["queue_length.memory"] = lambda: budget.waiting + budget.openings_waiting
    gauges["memory_leased_bytes"] = lambda: budget.leased
    gauges["memory_budget_bytes"] = lambda: budget.total
    gauges["kernel_threads"] = lambda: numba.config.NUMBA_NUM_THREADS
    counters.describe(routes.labels(), _build(service))


def _build(service: Service) -> dict[str, str]:
    return {
        "version": VERSION,
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
        "device": service.device.name,
    }


async def _warm(
    service: Service,
    counters: Counters,
    warm: Callable[[], object],
    fail: Callable[[int], None],
) -> None:
    started = time.perf_counter()
    try:
        await service.compute.call(warm)
        await service.compute.call(partial(service.device.prepare, service.settings))
    except Exception as error:
        known = numba_variables.behind(error)
        _log.critical(known or "the kernels could not be made ready", exc_info=known is None)
        fail(START_FAILED)
    else:
        service.ready = True
        counters.describe(routes.labels(), _build(service))  # the device may be another one
        counters.state("ready")
        _log.info("ready after %.1f s", time.perf_counter() - started)
