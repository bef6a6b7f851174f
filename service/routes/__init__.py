"""Routes of the service, each with its path, tensors and options."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response

from service.request.exchange import answer
from service.request.operation import Operation
from service.routes import docs, explain, health, losses, openapi, page, v2

OPERATIONS = (*losses.OPERATIONS, explain.OPERATION)

# By path: what ``direct`` calls without asking a router.
ENDPOINTS: dict[str, Callable[[Request], Awaitable[Response]]] = {**v2.ENDPOINTS}

_computing = APIRouter(tags=["losses"])


def _add(operation: Operation) -> None:
    async def endpoint(request: Request) -> Response:
        return await answer(request, operation)

    ENDPOINTS[operation.path] = endpoint
    _computing.add_api_route(
        operation.path,
        endpoint,
        methods=["POST"],
        summary=operation.summary,
        description=operation.description,
        operation_id=operation.path.rpartition("/")[2],
        response_class=Response,
        openapi_extra=openapi.describe(operation),
    )


for _operation in OPERATIONS:
    _add(_operation)

ROUTERS = (_computing, v2.router, health.router, docs.router, page.router)
