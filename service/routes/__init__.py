"""The paths of the service: what each takes, computes and answers."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service import openapi
from service.exchange import Operation, answer
from service.routes import docs, explain, health, losses

OPERATIONS = (*losses.OPERATIONS, explain.OPERATION)

_computing = APIRouter(tags=["losses"])


def _add(operation: Operation) -> None:
    async def endpoint(request: Request) -> Response:
        return await answer(request, operation)

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

ROUTERS = (_computing, health.router, docs.router)
