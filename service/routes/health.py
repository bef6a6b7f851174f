"""Health: the process lives, and may be sent work. Neither answer ever waits for anything."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.errors import NotReady, Stopping
from service.request.reply import JSONResponse
from service.routes import openapi

router = APIRouter(tags=["health"])


@router.get(
    "/healthz",
    summary="Live",
    description="Answers 200 as long as the process runs its event loop.",
    response_class=JSONResponse,
)
@router.get(
    "/livez",
    summary="Live, by Kubernetes' name",
    description="Answers as `/healthz` does.",
    operation_id="livez",
    response_class=JSONResponse,
)
async def live() -> JSONResponse:
    return JSONResponse({"status": "live"})


@router.get(
    "/readyz",
    summary="Ready",
    description="Answers 503 until the kernels are compiled and have reproduced the worked example,"
    " and again once the server was told to stop. `leased_bytes` is the memory that requests hold"
    " at this moment; `device` is what computes requests that name none; `why_no_gpu` is there"
    " where the server was started for a GPU or the CPU, and is on the CPU.",
    response_class=JSONResponse,
    openapi_extra={"responses": openapi.failures([503])},
)
async def ready(request: Request) -> JSONResponse:
    check_ready(request)
    service = request.app.state.service
    device = service.device
    state = {"status": "ready", "leased_bytes": service.budget.leased, "device": device.name}
    if device.why_no_gpu is not None:
        state["why_no_gpu"] = device.why_no_gpu
    return JSONResponse(state)


def check_ready(request: Request) -> None:
    """Raise ``NotReady``, or ``Stopping``, where nobody should send work here."""
    if request.app.state.stopping.is_set():
        raise Stopping("the server was told to stop")
    service = request.app.state.service
    if not service.ready:
        raise NotReady(service.why_not_ready)
