"""The pages that describe the service, from files of our own: they work without the internet."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.routes.page import HEADERS, asset

router = APIRouter(include_in_schema=False)

# A table, not a directory: no path of a client's reaches the file system.
ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
# Swagger UI's styles hold their icons, as data, and its elements have styles of their own.
_POLICY = (
    f"{HEADERS['Content-Security-Policy']}; img-src 'self' data:; style-src 'self' 'unsafe-inline'"
)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Swagger UI over the OpenAPI description, by links that hold below any prefix."""
    return asset(request, "docs.html", {"Content-Security-Policy": _POLICY})


def _add(name: str, media_type: str) -> None:
    read = cache((files("fastapi_offline") / "static" / name).read_bytes)

    @router.get(f"/docs/{name}")
    async def file() -> Response:
        return Response(read(), media_type=media_type)


for _name, _media_type in ASSETS.items():
    _add(_name, _media_type)
