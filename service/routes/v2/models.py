"""Models of V2: operations of one kernel call, and the descriptions that clients ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Request

from kernels import dtypes
from kernels.plan import PER_POSITION
from service.codecs.base import shown
from service.codecs.v2.model import Model
from service.errors import UnknownPath
from service.request.operation import Operation
from service.routes import losses, openapi

VERSION = "1"
PLATFORM = "lossd"
DATATYPES = (*dtypes.BY_V2, dtypes.BOOL.v2)

OPERATIONS = {operation.path.rpartition("/")[2]: operation for operation in losses.OPERATIONS}
MODELS = {
    name: Model(
        name=name,
        version=VERSION,
        largest=operation.needs[0],
        outputs=tuple(openapi.outputs_of(operation)),
        chooses="outputs" in operation.options.model_fields,
    )
    for name, operation in OPERATIONS.items()
}

# The protocol knows one type and one rank for each tensor. These are the most common: every type of
# ``kernels.dtypes`` and every rank is taken.
_FLOAT, _INTEGER = dtypes.FLOATS[0].v2, dtypes.INTEGERS[0].v2
_SAMPLES, _ROWS = [-1], [-1, -1]
_INPUTS = {
    "logits": (_FLOAT, _ROWS),
    "log_probs": (_FLOAT, _ROWS),
    "labels": (_INTEGER, _SAMPLES),
    "weight": (_FLOAT, [-1]),
    "sample_weight": (_FLOAT, _SAMPLES),
}


def named(request: Request) -> str:
    """Return the name of the path's model; raises ``UnknownPath`` if name or version is unknown."""
    name = request.path_params["model"]
    version = request.path_params.get("version", VERSION)
    if name not in MODELS:
        raise UnknownPath(f"there is no model {shown(name)}: the models are {', '.join(MODELS)}")
    if version != VERSION:
        raise UnknownPath(f"{name} has version {VERSION}, and no version {shown(version)}")
    return str(name)


def metadata(name: str) -> dict[str, Any]:
    """Return the answer of ``GET /v2/models/{name}``."""
    return {
        "name": name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [_tensor(*entry) for entry in _inputs(OPERATIONS[name]).items()],
        "outputs": [_tensor(*entry) for entry in _outputs(MODELS[name].outputs).items()],
    }


def config(name: str) -> dict[str, Any]:
    """Return the answer of ``GET /v2/models/{name}/config``: Triton's model configuration."""
    operation = OPERATIONS[name]
    return {
        "name": name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,  # the batch is one of the extents
        "input": [
            _configured(*entry) | {"optional": entry[0] in operation.takes}
            for entry in _inputs(operation).items()
        ],
        "output": [_configured(*entry) for entry in _outputs(MODELS[name].outputs).items()],
    }


def _inputs(operation: Operation) -> Mapping[str, tuple[str, list[int]]]:
    return {name: _INPUTS[name] for name in (*operation.needs, *operation.takes)}


def _outputs(names: Iterable[str]) -> Mapping[str, tuple[str, list[int]]]:
    found = {}
    for name in names:
        shape = _SAMPLES if name in PER_POSITION else _ROWS
        datatype = _FLOAT if PER_POSITION.get(name) is None else _INTEGER
        found[name] = (datatype, [1] if name == "loss" else shape)
    return found


def _tensor(name: str, entry: tuple[str, list[int]]) -> dict[str, Any]:
    return {"name": name, "datatype": entry[0], "shape": entry[1]}


def _configured(name: str, entry: tuple[str, list[int]]) -> dict[str, Any]:
    return {"name": name, "data_type": f"TYPE_{entry[0]}", "dims": entry[1]}
