"""Metrics of all workers, for Prometheus: answered while others wait and while the server stops."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.telemetry import exposition
from service.telemetry.counters import here

router = APIRouter(tags=["health"])

PATH = "/metrics"


@router.get(
    PATH,
    summary="Metrics",
    description="What all workers have counted, in Prometheus' text format; as OpenMetrics, with"
    " exemplars, where `Accept` asks for it.",
    response_class=Response,
    openapi_extra={
        "responses": {"200": {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    },
)
async def metrics(request: Request) -> Response:
    counters = here()
    counters.refresh()
    aliases = request.app.state.aliases
    text, media_type = exposition.text(
        counters.table, ", ".join(request.headers.getlist("accept")), aliases
    )
    return Response(text, media_type=media_type)
