"""The page at ``/``, its files, and the index that other clients get there."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.errors import UnknownPath
from service.page import ASSETS, SHARED
from service.request import media
from service.request.reply import JSONResponse

router = APIRouter(include_in_schema=False)

# Nothing but files of this server runs, nothing is sent elsewhere, and no page may frame this one.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for anew each time, and answered 304 by the ETag
}


@router.get("/")
async def index(request: Request) -> Response:
    """The page for clients that accept text/html, else the index: links are relative.

    A proxy may add a prefix to all paths.
    """
    settings = request.app.state.service.settings
    varies = {"Vary": "Accept"}
    if settings.page and _reads_html(request):
        return asset(request, "index.html", varies)
    return JSONResponse(
        {
            "name": request.app.title,
            "version": request.app.version,
            "docs": "docs",
            "openapi": "openapi.json",
            "ready": "readyz",
            "token": request.app.state.secured,
            "limits": {
                "body_bytes": settings.max_body_bytes,
                "decoded_bytes": settings.max_decoded_bytes,
            },
            "post": [path[1:] for path in request.app.state.computing],
        },
        headers=varies,
    )


def asset(request: Request, name: str, more: dict[str, str] | None = None) -> Response:
    """Answer with the file ``name``, or with 304 where the client has these bytes already."""
    content, media_type, etag = ASSETS[name]
    headers = {**HEADERS, **(more or {}), "ETag": etag}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


def _reads_html(request: Request) -> bool:
    """Tell whether Accept names text/html: ``*/*`` alone is what curl sends."""
    fields = media.values(request.scope["headers"], b"accept")
    ranges = [media.parsed(element) for element in media.listed(fields)]
    return any(kind == "text/html" and media.quality(rest) > 0 for kind, rest in ranges)


def _add(name: str) -> None:
    @router.get(f"/page/{name}")
    async def file(request: Request) -> Response:
        if name not in SHARED and not request.app.state.service.settings.page:
            raise UnknownPath("this server was started without the page: LOSSD_PAGE is false")
        return asset(request, name)


for _name in ASSETS:
    if not _name.endswith(".html"):
        _add(_name)
