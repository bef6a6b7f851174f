"""The OpenAPI description, built from the tables that the service itself runs on.

No route declares a body to FastAPI, which would read it as JSON before the codecs see it: so the
description of the bodies is written here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi

from kernels import dtypes
from service import problems
from service.codecs import CODECS
from service.middleware import PROBES
from service.request.operation import Operation
from service.routes import divergence
from service.routes.descriptions import OUTPUTS, TENSORS
from service.routes.examples import EXAMPLES

PATH = "/openapi.json"
_JSON = "application/json"
_REF = "#/components/schemas/"

# What is only needed where numbers do not say their type.
_DTYPE = {
    "type": "string",
    "enum": [row.name for row in dtypes.FLOATS],
    "default": dtypes.FLOAT32.name,
    "description": "The type that the numbers of all tensors but class indices are read as.",
}
_SCHEMAS: dict[str, Any] = {
    "Number": {
        "description": "A number; those that JSON cannot write are strings.",
        "anyOf": [{"type": "number"}, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}],
    },
    "Tensor": {
        "description": "Nested lists of numbers, every list of one depth equally long.",
        "anyOf": [{"$ref": _REF + "Number"}, {"type": "array", "items": {"$ref": _REF + "Tensor"}}],
    },
    "Problem": {
        "description": "RFC 9457 problem details.",
        "type": "object",
        "required": ["type", "title", "status", "detail", "error", "advice"],
        "properties": {
            "type": {"type": "string", "description": "`urn:lossd:problem:` and the kind's name."},
            "title": {"type": "string", "description": "The kind of problem in words."},
            "status": {"type": "integer", "description": "The HTTP status."},
            "detail": {"type": "string", "description": "What was wrong, and what would be right."},
            "error": {"type": "string", "description": "The same text as `detail`."},
            "advice": {"type": "string", "description": "What to do about this kind of problem."},
            "field": {"type": "string", "description": "The tensor, option or header at fault."},
            "where": {"type": "string", "description": "The place in the body."},
            "position": {
                "type": "array",
                "items": {"type": "integer"},
                "description": "The index of the first offending element of `field`.",
            },
        },
    },
}

# One for all statuses: the page's table of errors lists them.
_RESPONSES: dict[str, Any] = {
    "Problem": {
        "description": "An error: a problem, of which the table of errors lists every kind.",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": _REF + "Problem"}}},
    }
}
_FAILURE = {"$ref": "#/components/responses/Problem"}


def describe(operation: Operation) -> dict[str, Any]:
    """The OpenAPI operation object of ``operation``: what FastAPI cannot know."""
    return {
        "parameters": _parameters(operation),
        "requestBody": {"required": True, "content": _request_content(operation)},
        "responses": {"200": _success(operation), **failures()},
    }


def install(app: FastAPI, *, secured: bool = False) -> None:
    """Have ``app`` describe itself with the shared schemas, made once.

    ``secured``: whether it takes only requests that carry a token, but for its health.
    """

    def description() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                # Relative to where this description is: a proxy may have put a prefix before it.
                servers=[{"url": "."}],
            )
            components = app.openapi_schema.setdefault("components", {})
            components.setdefault("schemas", {}).update(_SCHEMAS)
            components["responses"] = _RESPONSES
            paths = app.openapi_schema["paths"]
            if secured:
                components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
                app.openapi_schema["security"] = [{"bearer": []}]
                for path in PROBES:
                    paths[path]["get"]["security"] = []
        return app.openapi_schema

    @cache
    def written() -> bytes:
        text = json.dumps(description(), ensure_ascii=False, separators=(",", ":"))
        return text.encode() + b"\n"

    async def answer(_: Request) -> Response:
        return Response(written(), media_type=_JSON)

    app.openapi = description  # type: ignore[method-assign]
    # Not FastAPI's own route, which writes the JSON anew for each request.
    app.openapi_url = PATH
    app.add_route(app.openapi_url, answer, include_in_schema=False)


def _properties(operation: Operation) -> dict[str, Any]:
    return dict(operation.options.model_json_schema()["properties"])


def outputs_of(operation: Operation) -> list[str]:
    """All that ``operation`` can answer with."""
    outputs = _properties(operation).get("outputs")
    return list(outputs["items"]["enum"] if outputs else EXAMPLES[operation.path]["worked"][2])


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": _with_default(schema),
            "schema": _in_query(schema),
            # A list is written with commas.
            "style": "form",
            "explode": False,
        }
        for name, schema in _properties(operation).items()
    ]


def _in_query(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` without null, which no text means, and without its default.

    Swagger UI sends the default of each parameter in the query string, where it stands against
    what the body says.
    """
    kept = {name: value for name, value in schema.items() if name not in ("default", "anyOf")}
    for kind in schema.get("anyOf", ()):
        if kind != {"type": "null"}:
            kept |= kind
    return kept


def _with_default(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    if default is None:
        return str(schema["description"])
    text = ",".join(default) if isinstance(default, list) else str(default)
    text = text.lower() if isinstance(default, bool) else text
    return f"{schema['description']} Without it: `{text}`."


def _request_content(operation: Operation) -> dict[str, Any]:
    tensors = (*operation.needs, *operation.takes)
    described = TENSORS | (divergence.OWN if operation.path == divergence.PATH else {})
    fields = {name: tensor(described[name]) for name in tensors} | _properties(operation)
    fields["dtype"] = _DTYPE
    schema = {
        "type": "object",
        "required": list(operation.needs),
        "properties": fields,
        "additionalProperties": False,
    }
    examples = {
        name: {"summary": summary, "value": request}
        for name, (summary, request, _) in EXAMPLES[operation.path].items()
    }
    content: dict[str, Any] = {_JSON: {"schema": schema, "examples": examples}}
    optional = f"; optional: {', '.join(operation.takes)}" if operation.takes else ""
    names = f"Tensors: {', '.join(operation.needs)}{optional}. "
    return content | _binary(names + "Options stand in the query string (or in `__metadata__`).")


def _success(operation: Operation) -> dict[str, Any]:
    examples = EXAMPLES[operation.path]
    names = outputs_of(operation)
    document = operation.document
    if document is not None:
        members: dict[str, Any] = {
            name: {"description": text} for name, text in document.members.items()
        }
        names = [f"{name} ({text})" for name, text in document.arrays.items()]
    else:
        members = {name: tensor(OUTPUTS[name]) for name in names}
    if "routes" in members:
        routes = examples["worked"][2]["routes"]
        members["routes"] = {
            "type": "object",
            "description": OUTPUTS["routes"],
            "properties": {name: {"$ref": _REF + "Number"} for name in routes},
        }
    schema = {"type": "object", "properties": members}
    answers = {
        name: {"summary": summary, "value": reply} for name, (summary, _, reply) in examples.items()
    }
    content: dict[str, Any] = {_JSON: {"schema": schema, "examples": answers}}
    return {
        "description": "The outputs asked for, in the format that Accept asks for.",
        "content": content | _binary(f"Tensors: {', '.join(names)}."),
    }


def failures(statuses: Iterable[int] | None = None) -> dict[str, Any]:
    """The responses that are errors: of these ``statuses``, or of any."""
    return {"default": _FAILURE} if statuses is None else {str(key): _FAILURE for key in statuses}


def tensor(description: str) -> dict[str, Any]:
    """The schema of nested lists of numbers."""
    return {"description": description, "allOf": [{"$ref": _REF + "Tensor"}]}


def _binary(description: str) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary", "description": description}
    return {
        media_type: {"schema": schema}
        for codec in CODECS
        for media_type in codec.media_types
        if media_type != _JSON
    }
