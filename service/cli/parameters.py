"""Command-line options made from the fields of a pydantic model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer
from pydantic import BaseModel

# JSON Schema's types as Typer writes its own.
_KINDS = {"integer": "<int>", "number": "<float>"}


def option(name: str) -> str:
    """Return the option that sets the field ``name``."""
    return "--" + name.replace("_", "-")


def add(
    command: Callable[..., None],
    model: type[BaseModel],
    names: Iterable[str],
    note: Callable[[str], str] = lambda name: "",
    panel: Callable[[str], str | None] = lambda name: None,
) -> None:
    """Add options for the fields ``names`` to the signature of ``command``, in place of its ``**``.

    Typer reads signatures. Values are passed as text, ``None`` where not given, for the model to
    validate. A boolean field is a flag, and has a ``--no-`` flag too if it is true by default.
    ``note(name)`` is added to a field's description; ``panel(name)`` is its heading in the help.
    """
    properties = model.model_json_schema()["properties"]
    signature = inspect.signature(command, eval_str=True)
    own = [item for item in signature.parameters.values() if item.kind is not item.VAR_KEYWORD]
    made = [_parameter(name, properties[name], note(name), panel(name)) for name in names]
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own, *made]
    )


def _parameter(
    name: str, schema: dict[str, Any], note: str, panel: str | None
) -> inspect.Parameter:
    kinds = [schema, *schema.get("anyOf", [])]
    kind = next(kind["type"] for kind in kinds if "type" in kind)
    default = schema["default"]
    text = schema["description"]
    if "enum" in schema:
        text += f" One of {', '.join(schema['enum'])}."
    if default is not None:
        text += f" (default: {default})"
    flag = kind == "boolean"
    metavar = None if flag else _KINDS.get(kind, "<str>")
    negative = f"/--no-{option(name).removeprefix('--')}" if flag and default else ""
    made = typer.Option(
        option(name) + negative,
        metavar=metavar,
        help=f"{text} {note}".strip(),
        show_default=False,
        rich_help_panel=panel,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[bool | None if flag else str | None, made],
    )
