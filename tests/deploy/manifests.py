"""Manifests of deploy/: their documents, and a check of custom resources by their fields."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
_SCHEMAS: dict[str, Any] = json.loads(Path(__file__).with_name("custom_resources.json").read_text())
_SCALARS: dict[str, Any] = {
    "string": str,
    "number": int,
    "boolean": bool,
    "number or string": (int, str),
}


def documents() -> dict[str, dict[str, Any]]:
    """The documents of kubernetes/ and kserve/, by path."""
    found = {}
    for folder in ("kubernetes", "kserve"):
        for path in sorted((DEPLOY / folder).rglob("*.yaml")):
            [found[str(path.relative_to(DEPLOY))]] = yaml.safe_load_all(path.read_text())
    return found


DOCUMENTS = documents()


def named(document: dict[str, Any]) -> str:
    return f"{document['apiVersion']} {document['kind']}"


CUSTOM = {path: one for path, one in DOCUMENTS.items() if named(one) in _SCHEMAS}
CORE = {path: one for path, one in DOCUMENTS.items() if path not in CUSTOM}


def faults(document: dict[str, Any]) -> list[str]:
    """Faults of the fields of a custom resource's ``spec``."""
    return [*_faults(document["spec"], _SCHEMAS[named(document)], "spec")]


def _faults(value: Any, kind: Any, where: str) -> Iterator[str]:
    if kind == "any" or kind == "Container":  # containers are checked as Kubernetes' own
        return
    if isinstance(kind, str):
        if not isinstance(value, _SCALARS[kind]) or (kind == "number" and isinstance(value, bool)):
            yield f"{where} is {value!r}, no {kind}"
    elif isinstance(kind, list):
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        for number, item in enumerate(value):
            yield from _faults(item, kind[0], f"{where}[{number}]")
    elif "one of" in kind:
        if value not in kind["one of"]:
            yield f"{where} is {value!r}, not one of {kind['one of']}"
    elif not isinstance(value, dict):
        yield f"{where} is no object"
    else:
        fields = {name.rstrip("!"): inner for name, inner in kind.items()}
        for name in kind:
            if name.endswith("!") and name[:-1] not in value:
                yield f"{where}.{name[:-1]} is missing"
        for name, inner in value.items():
            if name not in fields and "*" not in fields:
                yield f"{where}.{name} is unknown"
            else:
                yield from _faults(inner, fields.get(name, fields.get("*")), f"{where}.{name}")


def containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The containers of a Deployment or a ServingRuntime."""
    spec = document["spec"]
    found: list[dict[str, Any]] = spec.get("template", {}).get("spec", spec).get("containers", [])
    return found


def pod_spec(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document["spec"]
    inner: dict[str, Any] = spec.get("template", {}).get("spec", spec)
    return inner
