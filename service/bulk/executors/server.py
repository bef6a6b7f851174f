"""Server of a fleet: its URL, and whether it is one that can score pieces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import orjson

from service import VERSION
from service.bulk.executors.inference import MODEL, TERMS
from service.errors import InvalidOption


@dataclass
class Server:
    """A server: its URL, the requests that it has, and until when it is left alone."""

    url: str
    busy: int = 0
    rests_until: float = 0.0
    failures: int = 0


def servers_of(urls: Iterable[str]) -> list[Server]:
    """Servers at ``urls``. Raises ``InvalidOption`` for what is no URL of a server."""
    found = []
    for url in urls:
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            valid = False
        if not valid or parts.username or parts.query or parts.fragment:
            raise InvalidOption(
                f"servers has {url!r:.200}: give URLs such as http://host:8000, with commas"
                " between them; a token comes from a file",
                field="servers",
            )
        found.append(Server(url.rstrip("/")))
    if len({server.url for server in found}) < len(found) or not found:
        raise InvalidOption("servers must be one URL or more, each once", field="servers")
    return found


async def unreached(client: httpx.AsyncClient, server: Server) -> str | None:
    """Reason why ``server`` cannot be reached, if so. Raises ``InvalidOption`` for a wrong one."""
    try:
        about = await client.get(f"{server.url}/v2")
        model = await client.get(f"{server.url}/v2/models/{MODEL}")
    except httpx.TransportError as error:
        return f"{server.url} cannot be reached ({text_of(error)})"
    for answer in (about, model):
        if answer.status_code == 503:
            return None  # it starts, or has much to do
        if answer.status_code != 200:
            said = problem_of(answer.status_code, answer.content).get("detail")
            text = f"{server.url} answers {answer.status_code}: {said}"
            raise InvalidOption(text, field="servers")
    try:
        said, outputs = about.json(), {row["name"] for row in model.json()["outputs"]}
        name, version = said["name"], said["version"]
    except (ValueError, KeyError, TypeError):
        name = version = outputs = None
    if name != "lossd" or outputs is None:
        raise InvalidOption(f"{server.url} is no lossd server", field="servers")
    if version != VERSION:
        raise InvalidOption(
            f"{server.url} is lossd {version}, and this is {VERSION}: two versions may differ"
            " in the last bits of a loss",
            field="servers",
        )
    if missing := {*TERMS.values()} - outputs:
        raise InvalidOption(
            f"{server.url} does not have the outputs {', '.join(sorted(missing))}, which"
            " losses of several pieces are added from: update it",
            field="servers",
        )
    return None


def problem_of(status: int, body: bytes) -> dict[str, Any]:
    """Problem details of an answer (RFC 9457), with a ``detail`` whatever it is."""
    try:
        said = orjson.loads(body)
    except ValueError:
        said = None
    nothing = body[:200].decode(errors="replace").strip() or f"status {status}"
    return said if isinstance(said, dict) and "detail" in said else {"detail": nothing}


def text_of(error: Exception) -> str:
    """Text of an error of a connection, which may have none."""
    return str(error) or type(error).__name__
