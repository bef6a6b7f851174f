"""Private names of uvicorn and httptools: all that are used are in the table, and are there."""

from __future__ import annotations

import ast
import asyncio
import inspect
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import httptools
import pytest
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service import protocol
from service.protocol.cycle import Cycle
from service.protocol.requests import Requests
from tests.service.protocol.apps import Echo

IMPL = "uvicorn.protocols.http.httptools_impl"

# Module or class -> its names that ``service.protocol`` uses, separated by spaces. Neither package
# promises to keep them, so pyproject.toml pins both to the minor versions that were tested.
NAMES = {
    IMPL: "HEADER_RE HEADER_VALUE_RE STATUS_LINE",
    "uvicorn.protocols.utils": "get_client_addr get_path_with_query_string",
    f"{IMPL}.HttpToolsProtocol": (
        "_start_asgi_task access_log access_logger app client connection_lost connection_made"
        " connections cycle data_received expect_100_continue flow headers limit_concurrency"
        " logger loop on_body on_header on_headers_complete on_message_begin on_message_complete"
        " on_response_complete on_url parser pause_writing pipeline resume_writing root_path scope"
        " server_state shutdown tasks timeout_keep_alive transport url ws_protocol_class"
    ),
    f"{IMPL}.RequestResponseCycle": (
        "access_log access_logger body chunked_encoding default_headers disconnected"
        " expected_content_length flow keep_alive logger message_event more_body on_response"
        " receive response_complete response_started run_asgi scope send transport"
        " waiting_for_100_continue"
    ),
    "uvicorn.protocols.http.flow_control.FlowControl": (
        "pause_reading pause_writing read_paused resume_reading resume_writing write_paused"
    ),
    "uvicorn.server.ServerState": "connections default_headers tasks total_requests",
    "uvicorn.config": "Config",
    "uvicorn._types": "ASGI3Application",
    "httptools": "HttpParserCallbackError HttpParserError HttpParserUpgrade parse_url",
    "httptools.HttpRequestParser": (
        "feed_data get_http_version get_method set_dangerous_leniencies should_keep_alive"
        " should_upgrade"
    ),
}

TREES = [ast.parse(path.read_text()) for path in Path(protocol.__path__[0]).glob("*.py")]


def names_of(owner: Any) -> set[str]:
    """The names that a module or an instance of a class has; some are set as it is made."""
    if not inspect.isclass(owner):
        return {*dir(owner)}
    config = Config(Echo(), lifespan="off", log_config=None)
    arguments: dict[type, list[Any]] = {
        HttpToolsProtocol: [config, ServerState(), {}],
        RequestResponseCycle: [None] * (len(inspect.signature(RequestResponseCycle).parameters)),
        FlowControl: [asyncio.Transport()],
        ServerState: [],
        httptools.HttpRequestParser: [Echo()],
    }
    made = owner(*arguments[owner])
    if isinstance(made, HttpToolsProtocol):
        made.on_message_begin()
    return {*dir(made)}


def found(path: str) -> Any:
    """The module, or the class in a module, at ``path``."""
    try:
        return import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(import_module(module), name)


@pytest.mark.parametrize("path", NAMES)
async def test_every_private_name_is_there(path: str) -> None:
    missing = {*NAMES[path].split()} - names_of(found(path))
    package = path.partition(".")[0]
    assert not missing, (
        f"{path} of {package} {metadata.version(package)} has no {', '.join(sorted(missing))},"
        " which service/protocol uses: adapt it before the pin in pyproject.toml is moved"
    )


def test_what_is_imported_is_in_the_table() -> None:
    imported = {
        f"{node.module}.{alias.name}"
        for tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("uvicorn")
        for alias in node.names
    }
    listed = {f"{path}.{name}" for path, names in NAMES.items() for name in names.split()}
    assert imported <= listed | {*NAMES}


@pytest.mark.parametrize("own", [Requests, Cycle])
async def test_what_is_inherited_is_in_the_table(own: type) -> None:
    bases = [kind for kind in own.__mro__ if not kind.__module__.startswith("service.")]
    theirs = bases[0]
    # All classes have these.
    plain = {*dir(asyncio.Protocol), *vars(type("Plain", (), {}))}
    known = names_of(theirs) - plain
    read = {n.attr for tree in TREES for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    overridden = {name for kind in own.__mro__ if kind not in bases for name in vars(kind)}
    listed = {*NAMES[f"{theirs.__module__}.{theirs.__name__}"].split()}
    assert (read | overridden) & known <= listed
