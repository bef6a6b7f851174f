"""Run the image that buildah built as an orchestrator would, and check what it does.

    sudo python deploy/check_image.py [IMAGE]     (lossd by default)

The container's entry point runs as the image's user, without capabilities, on a read-only root of
which only the volume and /dev/shm are writable, until it is ready, the image's own health check
passes and the worked example is answered; then SIGTERM must end it with status 0. That is done
twice: with an empty volume, and with what the first run left there. Where the image holds kernels
for this machine's CPU, it must be ready in 3 s both times. Needs root and buildah, and no engine.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

PORT = 18231
STARTS_WITHIN = 300.0  # seconds, for a first start that compiles every kernel
SHIPPED_WITHIN = 3.0  # seconds, for one that compiles none
# Prints the variables with which the image uses kernels of its own, if it has any for this CPU.
LEVEL = "from service.process import levels; print(levels.environment({}).get(levels.CPU_NAME, ''))"
WORKED_EXAMPLE = {
    "logits": [[0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [1, 3, 2, 3, 0], [0, 0, 0, 0, 0]],
    "labels": [1, 4, 3, 2],
}
LOSS = "1.5722"
# A compiler or PyTorch in the image would be a mistake of the Dockerfile's.
UNWANTED = ("cc", "gcc", "clang", "nvcc", "cicc", "ptxas", "torch")


class Image(NamedTuple):
    """An image's root file system, mounted at ``root``, and its configuration."""

    root: Path
    config: dict[str, Any]

    @property
    def volume(self) -> Path:
        """The folder of the image that a volume covers."""
        (path,) = self.config["Volumes"]
        folder: Path = self.root / str(path).lstrip("/")
        return folder

    def inside(self, command: list[str], **variables: str) -> list[str]:
        """``command`` in the image's root, with its environment, as its user."""
        environment = [
            *self.config["Env"],
            *(f"{name}={value}" for name, value in variables.items()),
        ]
        user, _, group = self.config["User"].partition(":")
        become = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups"]
        become += ["--bounding-set=-all", "--no-new-privs"]
        return ["chroot", str(self.root), "env", "-i", *environment, *become, *command]


def buildah(*arguments: str) -> str:
    """The output of a buildah command."""
    environment = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    command = ["buildah", *arguments]
    return subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


@contextmanager
def mounted(name: str) -> Iterator[Image]:
    """The image called ``name`` for as long as it lasts."""
    container = buildah("from", "--pull-never", name)
    try:
        inspected = json.loads(buildah("inspect", container))
        config = inspected["Docker"]["config"]
        # The OCI configuration has no health check: buildah keeps it in Docker's alone.
        config["Healthcheck"] = config.get("Healthcheck") or _health_check()
        yield Image(Path(buildah("mount", container)), config)
    finally:
        buildah("rm", container)


def _health_check() -> dict[str, Any]:
    """The Dockerfile's HEALTHCHECK, which the OCI image format has no place for."""
    text = (Path(__file__).parent.parent / "Dockerfile").read_text()
    _, _, rest = text.partition("\nHEALTHCHECK")
    return {"Test": json.loads(rest[rest.index("[") : rest.index("]\n") + 1])}


def start(image: Image, volume: Path) -> subprocess.Popen[bytes]:
    """The container's entry point, on a read-only root; its mounts end with it."""
    # Nothing but this machine's loopback may reach it here.
    command = image.inside(
        [*image.config["Entrypoint"], *image.config["Cmd"]],
        LOSSD_HOST="127.0.0.1",
        LOSSD_PORT=str(PORT),
    )
    root = image.root
    script = (
        f"mount --bind {root} {root} && mount --bind {volume} {image.volume} && "
        f"mount -t proc proc {root}/proc && mount --bind /dev {root}/dev && "
        f"mount -t tmpfs tmpfs {root}/dev/shm && "
        f"mount -o remount,ro,bind {root} && exec {shlex.join(command)}"
    )
    return subprocess.Popen(["unshare", "--mount", "sh", "-c", script])


def seconds_until_ready(image: Image, volume: Path) -> float:
    """Start the container, wait until it is ready, ask it for the worked example, stop it."""
    test = [part for part in image.config["Healthcheck"]["Test"] if part != "CMD"]
    started = time.perf_counter()
    process = start(image, volume)
    try:
        while not ready():
            if process.poll() is not None or time.perf_counter() - started > STARTS_WITHIN:
                raise SystemExit("the container did not become ready")
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        if subprocess.run(image.inside(test, LOSSD_PORT=str(PORT)), check=False).returncode:
            raise SystemExit("the image's health check fails, though the container is ready")
        check_loss()
    finally:
        process.terminate()
        status = process.wait(40)
    if status != 0:
        raise SystemExit(f"SIGTERM ended the container with status {status}, not 0")
    return seconds


def ready() -> bool:
    """Tell whether ``/readyz`` of the running container answers 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def check_loss() -> None:
    """Compare the running container's loss of the worked example with the known one."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/cross_entropy",
        json.dumps(WORKED_EXAMPLE).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        loss = json.load(response)["loss"]
    if f"{loss:.4f}" != LOSS:
        raise SystemExit(f"the loss is {loss}, not {LOSS}")


def check_contents(image: Image) -> None:
    """Raise ``SystemExit`` where the image has a compiler, PyTorch, or root as its user."""
    found = [
        name
        for name in UNWANTED
        if [*image.root.glob(f"usr/bin/{name}"), *image.root.glob(f"opt/lossd/**/{name}")]
    ]
    if found:
        raise SystemExit(f"the image holds {', '.join(found)}")
    user = image.config["User"].partition(":")[0]
    if not user.isdecimal() or user == "0":
        raise SystemExit(f"the image's user is {user!r}, not a number other than root's")


def main() -> None:
    """Check the image's contents and start it twice, with an empty volume and a full one."""
    name = sys.argv[1] if len(sys.argv) > 1 else "lossd"
    with mounted(name) as image, tempfile.TemporaryDirectory() as folder:
        check_contents(image)
        level = subprocess.check_output(image.inside(["python", "-c", LEVEL]), text=True).strip()
        print(f"kernels of the image: {level or 'none for this CPU'}", flush=True)
        volume = Path(folder) / "volume"
        # A new volume is a copy of the folder that it covers, owner and mode included.
        subprocess.run(["cp", "--archive", str(image.volume), str(volume)], check=True)
        late = False
        for state in ("an empty", "a full"):
            seconds = seconds_until_ready(image, volume)
            print(f"ready {seconds:.1f} s after a start with {state} cache", flush=True)
            late |= bool(level) and seconds > SHIPPED_WITHIN
        size, kernels = (
            sum(file.lstat().st_size for file in (image.root / part).rglob("*"))
            for part in ("opt/lossd", "opt/lossd/share/lossd")
        )
        print(
            f"the image adds {size / 1e6:.0f} MB to its base: /opt/lossd,"
            f" of which {kernels / 1e6:.1f} MB are compiled kernels"
        )
        shutil.rmtree(volume)
    if late:
        raise SystemExit(f"a container that compiles nothing has to be ready in {SHIPPED_WITHIN} s")


if __name__ == "__main__":
    main()
