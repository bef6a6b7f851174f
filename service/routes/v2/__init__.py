"""Routes of the Open Inference Protocol, which clients of Triton, KServe and others speak."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from fastapi import APIRouter, Request, Response

from service.routes.v2 import description, infer, memory, models, server
from service.routes.v2.statistics import State

__all__ = ["ENDPOINTS", "State", "router"]

# By path, as ``service.routes.ENDPOINTS``: inference by the models that there are.
ENDPOINTS: dict[str, Callable[[Request], Awaitable[Response]]] = {
    f"/v2/models/{name}{version}/infer": partial(infer.answer, name)
    for name in models.MODELS
    for version in ("", f"/versions/{models.VERSION}")
}

router = APIRouter(tags=["V2"])
# For the description, and to refuse models that there are not: all others have an endpoint above.
router.add_api_route(
    "/v2/models/{model}/infer",
    infer.infer,
    methods=["POST"],
    summary="Inference",
    description="The outputs of a model, which is the route of the same name in `/v1`: as JSON, or"
    " as JSON followed by binary tensors.",
    operation_id="infer",
    response_class=Response,
    openapi_extra=description.inference(),
)
router.add_api_route(
    "/v2/models/{model}/versions/{version}/infer",
    infer.infer,
    methods=["POST"],
    include_in_schema=False,
)
router.include_router(server.router)
router.include_router(memory.router)
