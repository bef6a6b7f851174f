"""The pages that describe the service, from files of our own: they work without the internet."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response

from service.request.reply import JSONResponse

router = APIRouter(include_in_schema=False)

# A table, not a directory: no path of a client's reaches the file system.
ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


@router.get("/")
async def index(request: Request) -> JSONResponse:
    """The service's name and version, and links: relative ones, since a proxy may add a prefix."""
    return JSONResponse(
        {
            "name": request.app.title,
            "version": request.app.version,
            "docs": "docs",
            "openapi": "openapi.json",
            "ready": "readyz",
        }
    )


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Swagger UI over the OpenAPI description, by links that hold below any prefix."""
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title=request.app.title,
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
    )


def _add(name: str, media_type: str) -> None:
    read = cache((files("fastapi_offline") / "static" / name).read_bytes)

    @router.get(f"/docs/{name}")
    async def asset() -> Response:
        return Response(read(), media_type=media_type)


for _name, _media_type in ASSETS.items():
    _add(_name, _media_type)
