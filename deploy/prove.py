"""Runs the Dockerfile where there is no Docker engine: stage by stage, in Debian roots.

    sudo python deploy/prove.py DIRECTORY [cuda]

It needs root, debootstrap and the network. ``python:X-slim`` is stood in for by a minimal Debian
with Debian's own Python; every instruction below it is the Dockerfile's. The last stage then runs
as its user, without capabilities, on a read-only root with only the volume writable, until its own
health check passes and it has answered a request; once with an empty volume, once with what that
left there. Of the target ``cuda`` all is done but what needs a GPU: as it is, it must end with a
line that says what is missing, and it runs on the CPU with LOSSD_DEVICE=auto, which /readyz tells.
DIRECTORY is filled with the roots, some 2 GB, or 4 for ``cuda``, and is not removed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
SUITE = "trixie"  # the Debian that python:3.13-slim is made from
PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"
PORT = "18231"
PATIENCE = 300  # seconds
SYSTEM_PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Docker lends the first two to its builds; the certificates are for registries behind a proxy.
LENT = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")


@dataclass
class Stage:
    """One stage: its root directory, and what its instructions have set."""

    root: Path
    workdir: str = "/"
    user: str = "0:0"
    environment: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def inside(self, path: str) -> Path:
        """``path`` of the stage, as a path of this machine."""
        return self.root / os.path.join(self.workdir, path).lstrip("/")


def instructions(text: str) -> list[tuple[str, str]]:
    """The (name, arguments) of each instruction: comments left out, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(None, 1)[1].strip()) for line in text.splitlines() if line]


def base(directory: Path) -> Path:
    """A root like ``python:X-slim``, made once."""
    root = directory / "debian"
    if not root.exists():
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, f"{root}.part")
        for name in ("python", "python3"):
            (Path(f"{root}.part/usr/local/bin") / name).symlink_to("/usr/bin/python3")
        Path(f"{root}.part").rename(root)
    return root


def recipes(text: str) -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage by its name, from its FROM on; the last one is "final"."""
    stages: dict[str, list[tuple[str, str]]] = {}
    for name, rest in instructions(text):
        if name == "FROM":
            stages[rest.partition(" AS ")[2] or "final"] = own = [(name, rest)]
        elif stages:
            own.append((name, rest))
    return stages


def needed(stages: dict[str, list[tuple[str, str]]], target: str) -> list[str]:
    """The stages that ``target`` is made from, in their order, and itself."""
    wanted = {target}
    for label in reversed(stages):
        if label in wanted:
            for name, rest in stages[label]:
                first = rest.split()[0].removeprefix("--from=")
                wanted |= {first} & stages.keys() if name in ("FROM", "COPY") else set()
    return [label for label in stages if label in wanted]


def build(directory: Path, target: str) -> Stage:
    """Carry out what the Dockerfile has for ``target``."""
    recipe = recipes((SOURCE / "Dockerfile").read_text())
    stages: dict[str, Stage] = {}
    for label in needed(recipe, target):
        origin = stages.get(recipe[label][0][1].split()[0], Stage(base(directory)))
        stage = stages[label] = replace(
            origin,
            root=directory / label,
            environment={**origin.environment},
            volumes=[*origin.volumes],
        )
        shutil.rmtree(stage.root, ignore_errors=True)
        run("cp", "--archive", str(origin.root), str(stage.root))
        for path in LENT:
            shutil.copy(path, stage.inside(path))
        carry_out(recipe[label], stage, stages)
    return stages[target]


def carry_out(recipe: list[tuple[str, str]], stage: Stage, stages: dict[str, Stage]) -> None:
    """One stage's instructions."""
    for name, rest in recipe:
        print(f"{name} {rest[:100]}", flush=True)
        match name:
            case "FROM":
                pass
            case "WORKDIR":
                stage.workdir = rest
                stage.inside(".").mkdir(parents=True, exist_ok=True)
            case "COPY":
                copy(stages, stage, rest.split())
            case "RUN":
                run(*chroot(stage, ["sh", "-c", f"cd {stage.workdir} && {rest}"], lent()))
            case "ENV":
                stage.environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            case "USER":
                stage.user = rest
            case "VOLUME":
                stage.volumes.append(rest)
            case "HEALTHCHECK":
                stage.health = json.loads(rest[rest.index("[") :])
            case "ENTRYPOINT":
                stage.entrypoint = json.loads(rest)
            case "CMD":
                stage.command = json.loads(rest)
            case "EXPOSE":
                pass
            case _:
                raise SystemExit(f"{name}: this script has no idea how to do that")


def copy(stages: dict[str, Stage], stage: Stage, words: list[str]) -> None:
    """COPY: files into a directory, or a directory's contents as another directory."""
    source = SOURCE
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].root
    *paths, target = words
    for path in paths:
        origin, goal = source / path.lstrip("/"), stage.inside(target)
        if origin.is_dir():
            shutil.copytree(
                origin,
                goal,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__") if source is SOURCE else None,
            )
        else:
            if target.endswith("/"):
                goal.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, goal)


def lent() -> dict[str, str]:
    """What package clients are told on this machine, and may be told in a build."""
    ours = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "http"))}
    return ours | {"DEBIAN_FRONTEND": "noninteractive"}


def chroot(stage: Stage, command: list[str], more: Mapping[str, str]) -> list[str]:
    """``command`` in the stage, with its variables and ``more``, and none of this machine's."""
    variables = {"PATH": SYSTEM_PATH, **stage.environment, **more}
    given = [f"{name}={value}" for name, value in variables.items()]
    return ["chroot", str(stage.root), "env", "--ignore-environment", *given, *command]


def run(*command: str) -> None:
    """Run it to its end; what it prints is of no interest unless it fails."""
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{shlex.join(command)}\n{result.stdout}{result.stderr}")


def container(stage: Stage, **more: str) -> tuple[list[str], list[str]]:
    """What starts the container, and what runs its health check."""
    volume, inside = stage.root.parent / "volume", stage.inside(stage.volumes[0])
    if not volume.exists():
        # A new volume is a copy of the directory that it covers, owner and all.
        run("cp", "--archive", str(inside), str(volume))
    user, group = stage.user.split(":")
    become = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--bounding-set=-all"]
    # Nothing but this machine's loopback may reach it here.
    more |= {"LOSSD_HOST": "127.0.0.1", "LOSSD_PORT": PORT}
    command = chroot(stage, become + stage.entrypoint + stage.command, more)
    health = chroot(stage, become + stage.health, more)
    # In a mount namespace of their own, the mounts end with the process.
    script = (
        f"mount --bind {stage.root} {stage.root} && mount --bind {volume} {inside} && "
        f"mount -t proc proc {stage.inside('/proc')} && "
        f"mount --bind /dev {stage.inside('/dev')} && "
        f"mount -t tmpfs tmpfs {stage.inside('/dev/shm')} && "
        f"mount -o remount,ro,bind {stage.root} && exec {shlex.join(command)}"
    )
    return ["unshare", "--mount", "sh", "-c", script], health


def serve(stage: Stage, **more: str) -> float:
    """Start the container, wait for its health check, ask it, stop it; seconds until healthy."""
    command, health = container(stage, **more)
    started = time.perf_counter()
    process = subprocess.Popen(command)
    try:
        while subprocess.run(health, check=False, stderr=subprocess.DEVNULL).returncode:
            if process.poll() is not None or time.perf_counter() - started > PATIENCE:
                raise SystemExit("the container did not become healthy")
            time.sleep(1)
        seconds = time.perf_counter() - started
        ask()
        if more:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/readyz") as response:
                print(response.read().decode())
    finally:
        process.terminate()
        status = process.wait(30)
    if status != 0:
        raise SystemExit(f"stopped with status {status}, not 0")
    return seconds


def ask() -> None:
    """The worked example, of the running container."""
    body = {
        "logits": [[0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [1, 3, 2, 3, 0], [0, 0, 0, 0, 0]],
        "labels": [1, 4, 3, 2],
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/cross_entropy",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        loss = json.load(response)["loss"]
    if f"{loss:.4f}" != "1.5722":
        raise SystemExit(f"the loss is {loss}, not 1.5722")


def refuse(stage: Stage) -> None:
    """Start the container for a GPU, where there is none."""
    ended = subprocess.run(
        container(stage)[0], check=False, capture_output=True, text=True, timeout=PATIENCE
    )
    said = [line for line in ended.stderr.splitlines() if "LOSSD_DEVICE is cuda" in line]
    if ended.returncode != 3 or not said or "Traceback" in ended.stderr:
        raise SystemExit(f"without a GPU: status {ended.returncode}\n{ended.stderr}")
    print(said[0])


def megabytes(path: Path) -> float:
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir()) / 1e6


def main() -> None:
    """Build the image's file system and run it twice."""
    directory = Path(sys.argv[1]).resolve()
    target = sys.argv[2] if len(sys.argv) > 2 else "final"
    directory.mkdir(parents=True, exist_ok=True)
    stage = build(directory, target)
    found = [
        name
        for name in ("cc", "gcc", "clang", "nvcc", "cicc", "ptxas", "torch")
        if list(stage.root.glob(f"**/bin/{name}"))
        + list(stage.root.glob(f"**/site-packages/{name}"))
    ]
    cuda = list(stage.root.glob("**/site-packages/*cuda*"))
    if found or bool(cuda) != (target == "cuda"):
        raise SystemExit(f"the image holds what it must not, or not what it must: {found} {cuda}")
    shutil.rmtree(directory / "volume", ignore_errors=True)
    more = {}
    if target == "cuda":
        refuse(stage)
        more = {"LOSSD_DEVICE": "auto"}
    for state in ("empty", "warm"):
        print(f"{state} volume: healthy after {serve(stage, **more):.1f} s", flush=True)
    added = megabytes(stage.root) - megabytes(base(directory))
    print(
        f"the image adds {added:.0f} MB to its base; the volume holds "
        f"{megabytes(directory / 'volume'):.1f} MB"
    )


if __name__ == "__main__":
    main()
