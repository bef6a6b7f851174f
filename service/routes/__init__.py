"""Routes of the service, each with its path, tensors and options."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from fastapi import APIRouter, Request, Response

from service.request.exchange import answer
from service.request.operation import Operation
from service.routes import docs, explain, health, losses, metrics, openapi, page, report, v2

OPERATIONS = (*losses.OPERATIONS, explain.OPERATION, report.OPERATION)

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

ROUTERS = (_computing, v2.router, health.router, metrics.router, docs.router, page.router)


_FILE = re.compile(r"^(/page/|/docs/).+")


def labels() -> dict[str, str]:
    """Return the label in metrics of each path, or path's template, that there is.

    The two paths of a model's inference have one, and so have the files of the page.
    """
    found = {path: _FILE.sub(r"\1{file}", path) for router in ROUTERS for path in _paths(router)}
    version = f"/versions/{v2.models.VERSION}/"
    ours = {path: path.replace(version, "/") for path in ENDPOINTS}
    return {**found, **ours, openapi.PATH: openapi.PATH}


def _paths(router: Any) -> Iterator[str]:
    for route in router.routes:
        if hasattr(route, "original_router"):  # that another includes
            yield from _paths(route.original_router)
        else:
            yield route.path
