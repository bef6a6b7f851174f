"""Shards in a bucket of S3, where s3fs is installed and moto's server is on the path.

Neither is in the lock: botocore's release that s3fs takes is not always that of moto. ``pip install
s3fs`` here, and ``moto[server]`` in an environment of its own.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale.shards import FORMATS, written
from service.bulk.formats import fingerprint
from tests.service.cli.score_command import machine, run

# All but Fortran order, whose rows lie across the whole file: it is read from disks alone.
STREAMED = [name for name in FORMATS if name != "npy-fortran"]
MOTO = shutil.which("moto_server")
pytestmark = pytest.mark.skipif(MOTO is None, reason="moto_server is not on the path")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """File system with a bucket ``logits``, and the folder that it is a copy of."""
    s3fs = pytest.importorskip("s3fs")
    folder = tmp_path_factory.mktemp("logits")
    for name in STREAMED:
        list(written(folder / name, 60_000, shards=2, classes=50, formats=(name,)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        command = [str(MOTO), "-H", "127.0.0.1", "-p", str(port)]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as moto:
            try:
                _wait(moto, port)
                files = s3fs.S3FileSystem()
                files.mkdir("logits")
                for path in folder.rglob("*"):
                    if path.is_file():
                        files.put(str(path), f"logits/{path.relative_to(folder)}")
                yield files, folder
            finally:
                moto.terminate()


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    while True:
        assert server.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.05)


@pytest.mark.parametrize("name", STREAMED)
def test_a_bucket_has_the_bits_of_a_folder(bucket: tuple[Any, Path], name: str) -> None:
    _, folder = bucket
    options = ["--piece-bytes", 9000, "--workers", 0]
    here, there = machine(folder / name, *options), machine(f"s3://logits/{name}/", *options)
    for answer, root in ((here, f"{folder}/"), (there, "s3://logits/")):
        for worst in answer["worst"]:
            worst["shard"] = worst["shard"].removeprefix(root)
    assert there == here


def test_an_object_that_is_written_anew_is_another(bucket: tuple[Any, Path]) -> None:
    files, _ = bucket
    files.pipe("logits/one.npz", b"one")
    before = fingerprint("s3://logits/one.npz", {})
    files.pipe("logits/one.npz", b"two")
    assert fingerprint("s3://logits/one.npz", {}) != before


def test_objects_and_buckets_that_are_not_there(bucket: tuple[Any, Path]) -> None:
    for url in ("s3://logits/none.npz", "s3://none/shard.npz"):
        result = run(url)
        assert result.exit_code == 5
        assert f"{url}: it is not there any more, or never was" in result.stderr
