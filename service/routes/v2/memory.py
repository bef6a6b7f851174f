"""Shared memory that clients register, to send tensors without sending them; see ``Regions``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.codecs.v2.parameters import LARGEST, natural, string
from service.errors import NotOffered
from service.memory.regions import Regions
from service.request.reply import JSONResponse
from service.routes.v2.description import REGION, body, described
from service.routes.v2.small_body import small_object

router = APIRouter()

_BYTES = {"type": "integer", "minimum": 0, "maximum": LARGEST}
_REGISTER = {
    "type": "object",
    "required": ["key", "byte_size"],
    "properties": {
        "key": {"type": "string", "description": "Its name in the system, not a path."},
        "offset": _BYTES | {"default": 0, "description": "Where in it the region starts."},
        "byte_size": _BYTES | {"description": "How long the region is."},
    },
}


@router.get(
    "/v2/systemsharedmemory/status",
    summary="Shared memory regions",
    description="Every region that is registered.",
)
async def status(request: Request) -> JSONResponse:
    return JSONResponse(_regions(request).status(None))


@router.get("/v2/systemsharedmemory/region/{region}/status", include_in_schema=False)
async def region_status(request: Request) -> JSONResponse:
    return JSONResponse(_regions(request).status(request.path_params["region"]))


@router.post(
    "/v2/systemsharedmemory/region/{region}/register",
    summary="Register shared memory",
    description="Let requests name `byte_size` bytes from `offset` on of the POSIX shared memory"
    " `key`.",
    response_class=Response,
    openapi_extra=described(REGION, errors=[400, 413, 501, 503]) | body(_REGISTER),
)
async def register(request: Request) -> Response:
    given = await small_object(request)
    key = string(given.get("key"), "key")
    offset = 0 if given.get("offset") is None else natural(given["offset"], "offset", "offset")
    size = natural(given.get("byte_size"), "byte_size", "byte_size")
    _regions(request).register(request.path_params["region"], key, offset, size)
    return Response()


@router.post(
    "/v2/systemsharedmemory/unregister",
    summary="Unregister shared memory",
    description="Forget every region. Requests that use one keep it until they end.",
    response_class=Response,
)
async def unregister_all(request: Request) -> Response:
    _regions(request).unregister(None)
    return Response()


@router.post("/v2/systemsharedmemory/region/{region}/unregister", include_in_schema=False)
async def unregister(request: Request) -> Response:
    _regions(request).unregister(request.path_params["region"])
    return Response()


@router.get("/v2/cudasharedmemory/status", include_in_schema=False)
@router.get("/v2/cudasharedmemory/region/{region}/status", include_in_schema=False)
async def cuda_status() -> JSONResponse:
    return JSONResponse([])


@router.post("/v2/cudasharedmemory/region/{region}/register", include_in_schema=False)
async def cuda_register() -> Response:
    raise NotOffered("memory of a GPU cannot be registered: tensors come from the host's")


@router.post("/v2/cudasharedmemory/unregister", include_in_schema=False)
@router.post("/v2/cudasharedmemory/region/{region}/unregister", include_in_schema=False)
async def cuda_unregister() -> Response:
    """Nothing is registered: clients that clean up before they start need not know."""
    return Response()


def _regions(request: Request) -> Regions:
    regions: Regions = request.app.state.v2.regions
    return regions
