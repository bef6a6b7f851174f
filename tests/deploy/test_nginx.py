"""A proxy in front, as deploy/nginx/lossd.conf has it: a prefix, and uploads as they come."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest

from benchmarks.server import serving
from tests.deploy.manifests import DEPLOY
from tests.service import wire
from tests.service.process.workers import PATIENCE, until

LOGITS = np.zeros((256, 4096), np.float32)  # 4 MiB, four times what nginx lets through by default


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URLs of nginx's prefix, and of lossd itself."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        pytest.skip("needs the Debian package nginx-light")
    folder = tmp_path_factory.mktemp("nginx")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving("--trusted-proxies", "127.0.0.1", "--shutdown-seconds", "5") as server:
        text = (DEPLOY / "nginx/lossd.conf").read_text()
        host, own_port = server.address
        text = text.replace("server 127.0.0.1:8000;", f"server {host}:{own_port};")
        text = text.replace("listen 80;", f"listen 127.0.0.1:{port};")
        assert str(own_port) in text
        assert str(port) in text
        (folder / "nginx.conf").write_text(_main(folder, text))
        process = subprocess.Popen(
            [nginx, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log", "-g", "daemon off;"]
        )
        try:
            until(lambda: _listens(port))
            yield f"http://127.0.0.1:{port}/loss", server.url
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _main(folder: Path, text: str) -> str:
    """Main file of nginx around ``text``, which writes into ``folder`` alone, as this user."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    return (
        f"pid {folder}/nginx.pid;\nworker_processes 1;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{paths}\n{text}\n}}\n"
    )


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return False
    return True


def test_everything_is_below_the_prefix(proxied: tuple[str, str]) -> None:
    url, _ = proxied
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        assert client.get(f"{url}/readyz").json()["status"] == "ready"
        page = client.get(f"{url}/docs").text
        [script] = [part for part in page.split('"') if part.endswith("bundle.js")]
        assert client.get(f"{url}/{script}").status_code == 200
        [described] = client.get(f"{url}/openapi.json").json()["servers"]
        assert described["url"] == "."
        answer = client.post(
            f"{url}/v1/softmax",
            content=wire.safetensors_body({"logits": LOGITS}),
            headers={"content-type": wire.SAFETENSORS},
        )
        assert answer.status_code == 200
        assert len(answer.content) > LOGITS.nbytes


def test_a_body_arrives_as_it_is_sent(proxied: tuple[str, str]) -> None:
    """Half of it has: nginx would have kept it until the end."""
    url, direct = proxied
    body = wire.safetensors_body({"logits": LOGITS})
    host, port = url.split("/")[2].split(":")
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as connection,
        httpx.Client(trust_env=False, timeout=PATIENCE) as client,
    ):
        head = (
            "POST /loss/v1/softmax HTTP/1.1\r\nHost: lossd\r\nConnection: close\r\n"
            f"Content-Type: {wire.SAFETENSORS}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body[: len(body) // 2])
        until(lambda: client.get(f"{direct}/readyz").json()["leased_bytes"] > 0)
        time.sleep(0.01)
        connection.sendall(body[len(body) // 2 :])
        assert connection.recv(12) == b"HTTP/1.1 200"
        while connection.recv(2**16):
            pass
