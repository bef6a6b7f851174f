"""Routes of V2 besides inference: health, metadata, statistics, the model repository."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from service import VERSION
from service.codecs.v2.parameters import flag
from service.errors import NotOffered
from service.request.reply import JSONResponse
from service.routes.health import check_ready
from service.routes.v2 import models
from service.routes.v2.description import MODEL, body, described
from service.routes.v2.small_body import small_object
from service.routes.v2.statistics import report
from service.telemetry import snapshot
from service.telemetry.counters import here

router = APIRouter()

_EXTENSIONS = ("binary_tensor_data", "parameters", "statistics", "model_configuration")
_OF_MODEL = described(MODEL, errors=[404])
_INDEX = {"ready": {"type": "boolean", "description": "Whether to list ready models only."}}


@router.get(
    "/v2/health/live",
    summary="Live",
    description="Answers 200 as long as the process runs its event loop.",
)
async def live() -> JSONResponse:
    return JSONResponse({"live": True})


@router.get(
    "/v2/health/ready",
    summary="Ready",
    description="Answers 503 until the kernels are compiled and have reproduced the worked"
    " example.",
    openapi_extra=described(errors=[503]),
)
async def ready(request: Request) -> JSONResponse:
    check_ready(request)
    return JSONResponse({"live": True, "ready": True})


@router.get("/v2/", include_in_schema=False)
@router.get(
    "/v2",
    summary="The server",
    description="Its name and version, and the extensions of the protocol that it has.",
)
async def server(request: Request) -> JSONResponse:
    shared = ("system_shared_memory",) if request.app.state.v2.regions.allowed else ()
    return JSONResponse(
        {"name": request.app.title, "version": VERSION, "extensions": [*_EXTENSIONS, *shared]}
    )


@router.get("/v2/models", summary="The models", description="The names of all models.")
async def listed() -> JSONResponse:
    return JSONResponse({"models": list(models.MODELS)})


@router.get(
    "/v2/models/stats",
    summary="Statistics of all models",
    description="How often each model was asked since the start, and where the time went.",
)
async def all_statistics() -> JSONResponse:
    return JSONResponse({"model_stats": _reports(*models.MODELS)})


@router.get(
    "/v2/models/{model}",
    summary="A model",
    description="The inputs and outputs of a model. Each has its most common type and rank; every"
    " type and rank that the kernel computes is taken.",
    openapi_extra=_OF_MODEL,
)
@router.get("/v2/models/{model}/versions/{version}", include_in_schema=False)
async def model(request: Request) -> JSONResponse:
    return JSONResponse(models.metadata(models.named(request)))


@router.get(
    "/v2/models/{model}/ready",
    summary="A model's readiness",
    description="Answers 503 until the server is ready.",
    openapi_extra=described(MODEL, errors=[404, 503]),
)
@router.get("/v2/models/{model}/versions/{version}/ready", include_in_schema=False)
async def model_ready(request: Request) -> JSONResponse:
    name = models.named(request)
    check_ready(request)
    return JSONResponse({"name": name, "ready": True})


@router.get(
    "/v2/models/{model}/config",
    summary="A model's configuration",
    description="The inputs and outputs again, in the words of Triton's model configuration.",
    openapi_extra=_OF_MODEL,
)
@router.get("/v2/models/{model}/versions/{version}/config", include_in_schema=False)
async def configuration(request: Request) -> JSONResponse:
    return JSONResponse(models.config(models.named(request)))


@router.get(
    "/v2/models/{model}/stats",
    summary="Statistics of a model",
    description="How often the model was asked since the start, and where the time went.",
    openapi_extra=_OF_MODEL,
)
@router.get("/v2/models/{model}/versions/{version}/stats", include_in_schema=False)
async def model_statistics(request: Request) -> JSONResponse:
    return JSONResponse({"model_stats": _reports(models.named(request))})


@router.post(
    "/v2/repository/index",
    summary="The model repository",
    description='Every model and its state; with `{"ready": true}`, those that are ready.',
    openapi_extra=described(errors=[400, 413]) | body({"type": "object", "properties": _INDEX}),
)
async def index(request: Request) -> JSONResponse:
    given = await small_object(request)
    only_ready = flag(given.get("ready"), False, "ready")
    service = request.app.state.service
    is_ready = service.ready
    state = {
        "version": models.VERSION,
        "state": "READY" if is_ready else "UNAVAILABLE",
        "reason": "" if is_ready else service.why_not_ready,
    }
    names = models.MODELS if is_ready or not only_ready else ()
    return JSONResponse([{"name": name, **state} for name in names])


@router.post("/v2/repository/models/{model}/load", include_in_schema=False)
@router.post("/v2/repository/models/{model}/unload", include_in_schema=False)
async def load(request: Request) -> JSONResponse:
    raise NotOffered("models cannot be loaded or unloaded: all of them always are")


def _reports(*names: str) -> list[dict[str, Any]]:
    counters = here()
    counters.refresh()
    taken = snapshot.taken(counters.table)
    return [report(taken, name, models.VERSION) for name in names]
