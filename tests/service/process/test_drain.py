"""Drain: not ready, and yet serving, until its time is over or a second signal comes.

Over TLS and below a prefix, as a server behind a load balancer may be.
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest

from benchmarks.server import serving
from service.cli.listening import health_check, is_ready
from tests.service import wire
from tests.service.conftest import ROOT
from tests.service.process.workers import PATIENCE, state, until, workers

BODY = b'{"logits": [[1, 2]]}'
JSON = {"content-type": wire.JSON}
LONG = "600"  # seconds: no test waits for that


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a certificate for 127.0.0.1, and its key beside it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    subprocess.run(
        [
            *command.split(),
            *("-subj", "/CN=lossd", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(path.with_name("key.pem")), "-out", str(path)),
        ],
        check=True,
        capture_output=True,
    )
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("count", ["1", "2"])
def test_connections_are_taken_while_it_says_that_it_is_not_ready(
    certificate: Path, count: str
) -> None:
    """It ends with status 0 at a second signal, or else the context manager raises."""
    key = str(certificate.with_name("key.pem"))
    options = ["--workers", count, "--drain-seconds", LONG, "--root-path", "/loss"]
    options += ["--tls-certificate", str(certificate), "--tls-key", key]
    with serving(*options) as server:
        context = ssl.create_default_context(cafile=str(certificate))

        def new() -> httpx.Client:
            return httpx.Client(base_url=server.url, verify=context, trust_env=False)

        with new() as client:
            # Large enough to be received past the parser.
            large = wire.safetensors_body({"logits": np.zeros((64, 4096), np.float32)})
            sent = {"content-type": wire.SAFETENSORS}
            assert client.post("/loss/v1/softmax", content=large, headers=sent).status_code == 200
            assert is_ready(server.address, tls=True)
            assert not is_ready(server.address)
            variables = {"LOSSD_PORT": str(server.address[1]), "LOSSD_TLS_CERTIFICATE": "a file"}
            assert health_check(variables) == 0
            begun = set(workers(server.process))

            os.kill(server.process, signal.SIGTERM)
            until(lambda: client.get("/readyz").status_code == 503)
        for _ in range(20):  # each on a connection of its own
            with new() as client:
                answer = client.post(
                    "/v1/softmax", content=BODY, headers={"content-type": wire.JSON}
                )
                assert answer.status_code == 200
                if answer.headers.get("connection") == "close":
                    continue
            # A worker that has not had the signal yet.
            assert count == "2"
        until(lambda: not is_ready(server.address, tls=True))
        assert set(workers(server.process)) == begun
        assert state(server.process) != "Z"
        os.kill(server.process, signal.SIGTERM)
        until(lambda: state(server.process) == "Z")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["--tls-certificate", "no/such.pem"], "no/such.pem cannot be used"),
        (["--tls-certificate", __file__], "cannot be used"),
        (["--tls-key", __file__], "LOSSD_TLS_KEY is set without LOSSD_TLS_CERTIFICATE"),
    ],
)
def test_files_that_are_no_certificate_fail_the_start(files: list[str], said: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "service.cli", "serve", "--port", "0", *files],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 3
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
