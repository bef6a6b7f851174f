"""Composition only: settings, lanes, routes and errors make the application."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service import VERSION, routes, settings
from service.compute import device
from service.compute.compiler import Compiler
from service.compute.lane import Lane
from service.memory.budget import Budget
from service.memory.limit import default_budget
from service.middleware import auth
from service.middleware.direct import Direct
from service.middleware.drain import Drain
from service.middleware.methods import Methods
from service.process import START_FAILED, numba_variables, shutdown
from service.process.warm_up import warm_up
from service.request.operation import Service, offered_dtypes
from service.routes import guide, handlers, openapi

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
    warm: Callable[[], None] | None = None,
    fail: Callable[[int], None] = os._exit,
) -> FastAPI:
    """Make the ASGI application; without ``given`` its settings come from the environment.

    ``warm`` (``warm_up``, if None) runs in the compute lane once the server has started, and no
    other work is taken until it returns; where it raises, ``fail`` is called with the process's
    exit status. Raises ``SettingsError`` where the environment holds a setting that cannot be used,
    tokens and the device included.
    """
    chosen = given or settings.load()
    tokens = auth.tokens(chosen)
    auth.warn_of_weak(chosen, tokens)
    computing = device.chosen(chosen)
    warming_up = warm or partial(warm_up, offered_dtypes(chosen))
    stopping = asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
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

        def begin_stop() -> None:
            stopping.set()
            # No connection is added from here on: what still comes is bounded, and was accepted.
            for lane in (service.compute, service.transcode, service.compiler.lane):
                lane.length = sys.maxsize

        stop = partial(asyncio.get_running_loop().call_soon_threadsafe, begin_stop)
        computing.failed = shutdown.GpuFailure(service, fail).report
        with shutdown.on_sigterm(stop):
            warming = asyncio.create_task(_warm(service, warming_up, fail))
            if chosen.workers > 1:
                # Others that are ready take all the connections meanwhile.
                await _either(warming, stopping)
            yield
        warming.cancel()
        service.compiler.close()
        service.transcode.close()
        service.compute.close()

    app = Application(
        title="lossd",
        version=VERSION,
        description=guide.DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,  # ``service.routes.openapi`` has its own
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Nothing here reports to it, and to find that out takes 6 us.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.stopping = stopping
    app.state.secured = bool(tokens)
    app.state.computing = sorted(routes.ENDPOINTS)
    app.state.v2 = routes.v2.State(chosen)
    for router in routes.ROUTERS:
        app.include_router(router)
    handlers.install(app)
    openapi.install(app, secured=bool(tokens))
    app.add_middleware(Methods)
    direct = Direct(partial(FastAPI.__call__, app), endpoints=routes.ENDPOINTS)
    app.entry = Drain(auth.Gate(direct, tokens) if tokens else direct)
    return app


async def _either(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Wait until ``task`` is done or ``event`` set."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def _warm(service: Service, warm: Callable[[], None], fail: Callable[[int], None]) -> None:
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
        _log.info("ready after %.1f s", time.perf_counter() - started)
