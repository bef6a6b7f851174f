"""Requests as clients write them: with NumPy, safetensors and json, and nothing of the service."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx2 as httpx
import ml_dtypes
import numpy as np
from safetensors.numpy import load, save

from kernels import dtypes

Array = np.ndarray[Any, Any]

JSON, SAFETENSORS, NPZ = "application/json", "application/x-safetensors", "application/x-npz"
MEDIA_TYPES = {"json": JSON, "safetensors": SAFETENSORS, "npz": NPZ}


def json_body(tensors: Mapping[str, Array]) -> bytes:
    """Nested lists, with NaN and infinities as bare tokens, and the type of the floats."""
    found = [dtypes.of(array) for array in tensors.values()]
    names = [row.name for row in found if row in dtypes.FLOATS and row is not dtypes.FLOAT32]
    members: dict[str, Any] = {"dtype": names[0]} if names else {}
    members |= {name: widened(array).tolist() for name, array in tensors.items()}
    return json.dumps(members).encode()


def safetensors_body(tensors: Mapping[str, Array], metadata: dict[str, str] | None = None) -> bytes:
    """As the safetensors library writes them."""
    return bytes(save({name: _named(array) for name, array in tensors.items()}, metadata))


def npz_body(tensors: Mapping[str, Array], *, compressed: bool = False) -> bytes:
    """As ``numpy.savez`` writes it."""
    arrays: dict[str, Any] = {name: _named(array) for name, array in tensors.items()}
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


BODIES: dict[str, Callable[[Mapping[str, Array]], bytes]] = {
    "json": json_body,
    "safetensors": safetensors_body,
    "npz": npz_body,
}


def widened(array: Array) -> Array:
    """bfloat16 as float32, which holds every value of it; other arrays as they are."""
    if array.dtype == dtypes.BFLOAT16.numpy:
        return np.asarray(array.view(ml_dtypes.bfloat16), np.float32)
    return array


def _named(array: Array) -> Array:
    """bfloat16 as ml_dtypes has it, which these libraries know."""
    return array.view(ml_dtypes.bfloat16) if array.dtype == dtypes.BFLOAT16.numpy else array


def tensors_of(response: httpx.Response) -> dict[str, Array]:
    """The named arrays of a 200 answer in any of the formats; JSON's are float64."""
    assert response.status_code == 200, response.text
    media_type = response.headers["content-type"]
    if media_type == JSON:
        parsed = response.json()
        return {name: np.asarray(value, np.float64) for name, value in parsed.items()}
    if media_type == SAFETENSORS:
        return dict(load(response.content))
    assert media_type == NPZ
    return dict(np.load(io.BytesIO(response.content)))


def problem_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem of an answer that must be one, checked for its shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["error"] == problem["detail"]
    assert problem["type"].startswith("urn:lossd:problem:")
    required = {"type", "title", "status", "detail", "error", "advice"}
    assert required <= problem.keys() <= required | {"field", "where", "position"}
    return problem
