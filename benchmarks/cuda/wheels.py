"""``make wheels``: what the service needs beside Numba and NumPy, for a machine without a network.

Wheels for Python 3.12 on Linux, x86-64, pinned and hashed as in requirements/run.txt, go to the
folder .wheels. ``check.sh`` installs them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = _ROOT / ".wheels"
# Packages of the machine itself, since PyTorch and numba-cuda there are made for these; and what
# is for other systems.
_LEFT_OUT = {"llvmlite", "numba", "numpy", "colorama"}
_TARGET = (
    "--python-version", "3.12", "--implementation", "cp",
    *(part for tag in (
        "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1",
    ) for part in ("--platform", f"{tag}_x86_64")),
)  # fmt: skip
_LARGEST = 64 * 2**20  # bytes of all wheels


def needed(requirements: str) -> Iterator[str]:
    """The entries of a requirements file, hashes included, but for what is left out."""
    entry = ""
    for line in requirements.splitlines():
        if line.startswith("#"):
            continue
        entry += line + "\n"
        if not line.endswith("\\"):
            if entry.partition("==")[0].strip() not in _LEFT_OUT:
                yield entry
            entry = ""


def main() -> int:
    """Download the wheels; 1 where pip fails, or they are larger than ``_LARGEST`` together."""
    _FOLDER.mkdir(exist_ok=True)
    for old in _FOLDER.glob("*.whl"):
        old.unlink()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(needed((_ROOT / "requirements" / "run.txt").read_text()))
        file.flush()
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        command += ["--require-hashes", "--no-deps", "--only-binary", ":all:", *_TARGET]
        failed = subprocess.run(
            [*command, "-d", str(_FOLDER), "-r", file.name], check=False
        ).returncode
    wheels = list(_FOLDER.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{len(wheels)} wheels, {size / 2**20:.1f} MiB, in {_FOLDER}")
    return int(failed != 0 or size > _LARGEST)


if __name__ == "__main__":
    sys.exit(main())
