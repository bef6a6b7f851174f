"""Models of V2: operations of one kernel call, and the descriptions that clients ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from fastapi import Request

from kernels import dtypes
from kernels.plan import TABLE, Kind
from service import options
from service.codecs.base import shown
from service.codecs.v2.model import Model
from service.errors import UnknownPath
from service.routes import losses, openapi

VERSION = "1"
PLATFORM = "lossd"
DATATYPES = (*dtypes.BY_V2, dtypes.BOOL.v2)

# The protocol's clients name the outputs that they want; others get the losses alone.
OPERATIONS = {
    operation.path.rpartition("/")[2]: operation._replace(
        options=options.answering(operation.options, options.LOSSES)
    )
    for operation in losses.OPERATIONS
}
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
_SHAPES = {
    Kind.SCALAR: [1],
    Kind.POSITION: _SAMPLES,
    Kind.SEQUENCE: _SAMPLES,
    Kind.CLASS: _ROWS,
    Kind.TOP: _ROWS,
}
_DATATYPES = {row.numpy: row.v2 for row in dtypes.ALL}
_INPUTS = {
    "logits": (_FLOAT, _ROWS),
    "log_probs": (_FLOAT, _ROWS),
    "labels": (_INTEGER, _SAMPLES),
    "weight": (_FLOAT, [-1]),
    "pos_weight": (_FLOAT, [-1]),
    "sample_weight": (_FLOAT, _SAMPLES),
    "chosen": (_INTEGER, [-1]),
    "mask": (dtypes.BOOL.v2, _SAMPLES),
    "target_logits": (_FLOAT, _ROWS),
    "target_log_probs": (_FLOAT, _ROWS),
    "target_classes": (_INTEGER, _ROWS),
    "target_top_log_probs": (_FLOAT, _ROWS),
    "segments": (_INTEGER, _SAMPLES),
}
# Shapes of a model's own: each logit of a binary cross-entropy has a label, a weight and a loss.
_OWN_SHAPES = {
    "binary_cross_entropy": dict.fromkeys(("labels", "sample_weight", "per_element"), _ROWS)
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
        "inputs": [_tensor(*entry) for entry in _inputs(name).items()],
        "outputs": [_tensor(*entry) for entry in _outputs(name).items()],
    }


def config(name: str) -> dict[str, Any]:
    """Return the answer of ``GET /v2/models/{name}/config``: Triton's model configuration."""
    optional = OPERATIONS[name].takes
    return {
        "name": name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,  # the batch is one of the extents
        "input": [
            _configured(*entry) | {"optional": entry[0] in optional}
            for entry in _inputs(name).items()
        ],
        "output": [_configured(*entry) for entry in _outputs(name).items()],
    }


def _inputs(model: str) -> Mapping[str, tuple[str, list[int]]]:
    operation, own = OPERATIONS[model], _OWN_SHAPES.get(model, {})
    rows = {name: _INPUTS[name] for name in (*operation.needs, *operation.takes)}
    return {name: (datatype, own.get(name, shape)) for name, (datatype, shape) in rows.items()}


def _outputs(model: str) -> Mapping[str, tuple[str, list[int]]]:
    rows, own = {name: TABLE[name] for name in MODELS[model].outputs}, _OWN_SHAPES.get(model, {})
    return {
        name: (
            _FLOAT if row.dtype is None else _DATATYPES[np.dtype(row.dtype)],
            own.get(name, _SHAPES[row.kind]),
        )
        for name, row in rows.items()
    }


def _tensor(name: str, entry: tuple[str, list[int]]) -> dict[str, Any]:
    return {"name": name, "datatype": entry[0], "shape": entry[1]}


def _configured(name: str, entry: tuple[str, list[int]]) -> dict[str, Any]:
    return {"name": name, "data_type": f"TYPE_{entry[0]}", "dims": entry[1]}
