"""Whether the process lives, and whether it may be sent work: neither ever waits for anything."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from service.errors import NotReady, Stopping

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Live", response_class=JSONResponse)
async def live() -> JSONResponse:
    """Answers 200 as long as the process runs its event loop."""
    return JSONResponse({"status": "live"})


@router.get("/readyz", summary="Ready", response_class=JSONResponse)
async def ready(request: Request) -> JSONResponse:
    """Answers 503 until the kernels are compiled and have reproduced the worked example, and again
    once the server was told to stop. ``leased_bytes`` is the memory that requests hold right now.
    """
    check_ready(request)
    leased = request.app.state.service.budget.leased
    return JSONResponse({"status": "ready", "leased_bytes": leased})


def check_ready(request: Request) -> None:
    """Raise ``NotReady``, or ``Stopping``, where nobody should send work here."""
    if request.app.state.stopping.is_set():
        raise Stopping("the server was told to stop")
    if not request.app.state.service.ready:
        raise NotReady("the kernels are being compiled")
