"""Routes of the Open Inference Protocol, which clients of Triton, KServe and others speak."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from fastapi import APIRouter, Request, Response

from service.routes.v2 import infer, memory, models, server
from service.routes.v2.statistics import State

__all__ = ["ENDPOINTS", "State", "router"]

# By path, as ``service.routes.ENDPOINTS``: inference by the models that there are.
ENDPOINTS: dict[str, Callable[[Request], Awaitable[Response]]] = {
    f"/v2/models/{name}{version}/infer": partial(infer.answer, name)
    for name in models.MODELS
    for version in ("", f"/versions/{models.VERSION}")
}

router = APIRouter(tags=["V2"])
for _routes in (infer, server, memory):
    router.include_router(_routes.router)
