"""Whether the process lives, and whether it may be sent work: neither ever waits for anything."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from service.errors import NotReady

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Live", response_class=JSONResponse)
async def live() -> JSONResponse:
    """Answers 200 as long as the process runs its event loop."""
    return JSONResponse({"status": "live"})


@router.get("/readyz", summary="Ready", response_class=JSONResponse)
async def ready(request: Request) -> JSONResponse:
    """Answers 503 until the kernels are compiled and have reproduced the worked example."""
    if not request.app.state.service.ready:
        raise NotReady("the kernels are being compiled")
    return JSONResponse({"status": "ready"})
