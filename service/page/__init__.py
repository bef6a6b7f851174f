"""Files of the page, of its saved reports, and of what /docs shares with them."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from importlib.resources import files
from typing import NamedTuple

_MEDIA_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./([\w.]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|async function|function|class) (\w+))", re.MULTILINE)


class Asset(NamedTuple):
    """File of the page: its bytes, its media type, and the ETag that names these bytes."""

    content: bytes
    media_type: str
    etag: str


def _asset(name: str, content: bytes) -> Asset:
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    return Asset(content, _MEDIA_TYPES[name.rpartition(".")[2]], etag)


# A table, read once: no path of a client's reaches the file system.
ASSETS = {
    path.name: _asset(path.name, path.read_bytes())
    for path in sorted(files(__name__).iterdir(), key=lambda path: path.name)
    if path.name.rpartition(".")[2] in _MEDIA_TYPES
}
# What /docs needs, too.
SHARED = frozenset({"theme.css", "theme.js", "icon.svg", "docs.css", "docs.js"})


def standalone(report: bytes, arrays: bytes = b"", title: str = "lossd report") -> str:
    """One HTML file that draws ``report`` (the JSON of /v1/report) and needs nothing else.

    ``arrays`` is the same answer as safetensors, for the maps; without it there are none. The file
    runs no script but its own, and loads nothing: its Content-Security-Policy names their hashes.
    """
    theme, modules = _text("theme.js"), _bundle("saved.js")
    style = _text("theme.css") + _text("style.css")
    scripts = " ".join(_hash(script) for script in (theme, modules))
    policy = (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; script-src {scripts};"
        f" style-src {_hash(style)}"
    )
    values = {
        "policy": policy,
        "title": _escaped(title),
        "style": style,
        "theme": theme,
        "modules": modules,
        # "<" would end the element where "</script" stands in a text; JSON may escape it.
        "report": report.decode().replace("<", "\\u003c"),
        "arrays": b64encode(arrays).decode(),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _text("saved.html"))


def _text(name: str) -> str:
    return ASSETS[name].content.decode()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _bundle(entry: str) -> str:
    """Join the module ``entry`` and those it imports into one script, each in its own scope."""
    order: list[str] = []

    def visit(name: str) -> None:
        for _, imported in _IMPORT.findall(_text(name)):
            visit(imported)
        if name not in order:
            order.append(name)

    visit(entry)
    parts = ['"use strict";', "const modules = {};"]
    for name in order:
        text = _IMPORT.sub(r'const \1 = modules["\2"];', _text(name))
        exported = ", ".join(_EXPORT.findall(text))
        body = _EXPORT.sub("", text)
        parts.append(f'modules["{name}"] = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();')
    return "\n".join(parts)
