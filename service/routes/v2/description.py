"""OpenAPI description of V2, from the tables that requests are served from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from kernels import dtypes
from service.codecs.compression import CODINGS
from service.codecs.v2.answer import BINARY, HEADER_LENGTH, JSON
from service.codecs.v2.parameters import FOREIGN, FOREIGN_PREFIX
from service.routes import openapi
from service.routes.examples import EXAMPLES
from service.routes.v2 import models

_ANY = {"type": "object", "additionalProperties": True}
_NAMED = {"type": "string", "description": "Its name."}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_DATATYPE = {
    "type": "string",
    "enum": list(models.DATATYPES),
    "description": f"Its type; {dtypes.BOOL.v2} is for weights and masks.",
}
_FOREIGN = ", ".join(f"`{name}`" for name in (*FOREIGN, f"{FOREIGN_PREFIX}*"))
_PARAMETERS = _ANY | {"description": "`binary_data_size`, or a shared memory region."}

MODEL = {
    "name": "model",
    "in": "path",
    "required": True,
    "description": "The name of a model. Its inputs and outputs are the tensors of the route of the"
    " same name in `/v1`.",
    "schema": {"type": "string", "enum": list(models.MODELS)},
}
REGION = {
    "name": "region",
    "in": "path",
    "required": True,
    "description": "What requests will call the region.",
    "schema": {"type": "string", "minLength": 1},
}

_INPUT = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": _NAMED,
        "datatype": _DATATYPE,
        "shape": _SHAPE,
        "parameters": _PARAMETERS,
        "data": openapi.tensor("The elements, flat or nested as the shape is."),
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "maxLength": 1024, "description": "Sent back with the answer."},
        "parameters": _ANY
        | {
            "description": "The options of the route of the same name in `/v1`, which may stand in"
            " the query string as well; and `binary_data_output`, whether outputs are binary unless"
            f" they say otherwise. Those of other servers are passed over, here and on tensors:"
            f" {_FOREIGN}."
        },
        "inputs": {"type": "array", "items": _INPUT},
        "outputs": {
            "type": "array",
            "description": "Those to answer with; by default what the route in `/v1` would.",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": _NAMED, "parameters": _PARAMETERS},
            },
        },
    },
}
_ANSWER = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "id": {"type": "string"},
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "outputs": {"type": "array", "items": _INPUT},
    },
}
_FOLLOWED = (
    f"The JSON, {HEADER_LENGTH} bytes of it, followed by the binary tensors in the order of its"
    " inputs or outputs: little-endian, in C order, without padding."
)


def described(*parameters: dict[str, Any], errors: Iterable[int] = ()) -> dict[str, Any]:
    """Return the ``openapi_extra`` of a route with these ``parameters`` and error statuses."""
    return {"parameters": list(parameters), "responses": openapi.failures(errors)}


def body(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the ``openapi_extra`` of a small JSON body."""
    return {"requestBody": {"content": {JSON: {"schema": schema}}}}


def inference() -> dict[str, Any]:
    """Return the ``openapi_extra`` of the inference route."""
    header = {
        "name": HEADER_LENGTH,
        "in": "header",
        "required": False,
        "description": "Bytes of JSON that the body starts with; without it, all of it is JSON.",
        "schema": {"type": "integer", "minimum": 1},
    }
    coding = {
        "name": "Content-Encoding",
        "in": "header",
        "required": False,
        "description": "How the body is compressed, if it is.",
        "schema": {"type": "string", "enum": list(CODINGS)},
    }
    binary = {"schema": {"type": "string", "format": "binary", "description": _FOLLOWED}}
    answers = {JSON: {"schema": _ANSWER}, BINARY: binary}
    success = {"description": "The outputs asked for.", "content": answers}
    return {
        "parameters": [MODEL, header, coding],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": _REQUEST, "examples": examples()}, BINARY: binary},
        },
        "responses": {"200": success, **openapi.failures()},
    }


def example(name: str) -> dict[str, Any]:
    """Return the first example of the model's route in ``/v1`` as a V2 request."""
    operation = models.OPERATIONS[name]
    given = EXAMPLES[operation.path]["worked"][1]
    inputs = [
        {**entry, "shape": list(np.shape(given[entry["name"]])), "data": given[entry["name"]]}
        for entry in models.metadata(name)["inputs"]
        if entry["name"] in given
    ]
    known = operation.options.model_fields.keys() - {"outputs"}
    parameters = {name: value for name, value in given.items() if name in known}
    return {"id": "1", "inputs": inputs} | ({"parameters": parameters} if parameters else {})


def examples() -> dict[str, Any]:
    """Requests of the first model, which Swagger UI preselects in the path."""
    first = next(iter(models.OPERATIONS))
    plain = example(first)
    chosen = {
        "parameters": {"label_smoothing": 0.1},
        "outputs": [{"name": "loss"}, {"name": "rank"}],
    }
    return {
        "plain": {"summary": f"The first example of /v1/{first}", "value": plain},
        "options": {
            "summary": "The same with an option and chosen outputs",
            "value": plain | chosen,
        },
    }
