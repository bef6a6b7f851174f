"""Peers: a loss service made of FastAPI, pydantic and PyTorch, under uvicorn as it is deployed.

``python -m benchmarks.http.peers`` prints its address.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import warnings
from importlib import import_module
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel

ECHO, JSON, BINARY = "/echo", "/json", "/binary"


class Body(BaseModel):
    """Cross-entropy request in JSON."""

    logits: list[list[float]]
    labels: list[int]


class Losses(BaseModel):
    """Answer to a ``Body``."""

    loss: float
    per_element: list[float]


def create_app(torch: Any | None) -> FastAPI:
    """Build the three routes; without PyTorch, the first only."""
    app = FastAPI()

    @app.post(ECHO)
    async def echo(body: Body) -> Body:
        return body

    if torch is None:
        return app
    cross_entropy = torch.nn.functional.cross_entropy

    @app.post(JSON)
    async def json_text(body: Body) -> Losses:
        logits, labels = torch.tensor(body.logits), torch.tensor(body.labels)
        losses = cross_entropy(logits, labels, reduction="none")
        return Losses(loss=losses.mean().item(), per_element=losses.tolist())

    @app.post(BINARY)
    async def binary(request: Request) -> dict[str, float]:
        body = await request.body()
        tensors = _tensors(torch, body, int(request.headers["inference-header-content-length"]))
        return {"loss": cross_entropy(tensors["logits"], tensors["labels"]).item()}

    return app


def _torch() -> Any | None:
    try:
        torch = import_module("torch")
    except ImportError:
        return None
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_grad_enabled(False)
    return torch


def _tensors(torch: Any, body: bytes, header_length: int) -> dict[str, Any]:
    """Views of a V2 request's binary tensors."""
    datatypes = {"FP32": torch.float32, "INT64": torch.int64}
    offset, tensors = header_length, {}
    for entry in json.loads(body[:header_length])["inputs"]:
        dtype, size = datatypes[entry["datatype"]], entry["parameters"]["binary_data_size"]
        flat = torch.frombuffer(body, dtype=dtype, count=size // dtype.itemsize, offset=offset)
        tensors[entry["name"]] = flat.reshape(entry["shape"])
        offset += size
    return tensors


def main() -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # PyTorch warns that a request's bytes are read-only; nothing here writes to them.
    warnings.filterwarnings("ignore", message="The given buffer is not writable")
    app = create_app(_torch())
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"ready on http://127.0.0.1:{listening.getsockname()[1]},", flush=True)
    # uvicorn takes uvloop and httptools where they are installed.
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
