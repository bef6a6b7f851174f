"""The Open Inference Protocol, which clients of Triton, KServe and others speak."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.routes.v2 import description, memory, server
from service.routes.v2.infer import infer
from service.routes.v2.state import State

__all__ = ["State", "router"]

router = APIRouter(tags=["V2"])
# First, since it is what is asked for most.
router.add_api_route(
    "/v2/models/{model}/infer",
    infer,
    methods=["POST"],
    summary="Inference",
    response_class=Response,
    openapi_extra=description.inference(),
)
router.add_api_route(
    "/v2/models/{model}/versions/{version}/infer",
    infer,
    methods=["POST"],
    include_in_schema=False,
)
router.include_router(server.router)
router.include_router(memory.router)
