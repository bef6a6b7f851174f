"""``make wheels``: what the service needs beside Numba and NumPy, for a machine without a network.

Wheels for Python 3.12 on Linux, x86-64, pinned and hashed as in requirements/run.txt, go to the
folder .wheels. ``check.sh`` installs them, and what lies in .wheels/spare, numba-cuda, where the
machine's own is of another version than pyproject.toml asks for.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = _ROOT / ".wheels"
_SPARE = _FOLDER / "spare"
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
    """Entries of a requirements file with their hashes, without those in ``_LEFT_OUT``."""
    entry = ""
    for line in requirements.splitlines():
        if line.startswith("#"):
            continue
        entry += line + "\n"
        if not line.endswith("\\"):
            if entry.partition("==")[0].strip() not in _LEFT_OUT:
                yield entry
            entry = ""


def _download(lock: str, folder: Path, only: Container[str] | None = None) -> bool:
    """Download the entries of requirements file ``lock``, or ``only`` some; True where pip did."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    entries = needed((_ROOT / "requirements" / lock).read_text())
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(e for e in entries if only is None or e.partition("==")[0] in only)
        file.flush()
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        command += ["--require-hashes", "--no-deps", "--only-binary", ":all:", *_TARGET]
        return not subprocess.run(
            [*command, "-d", str(folder), "-r", file.name], check=False
        ).returncode


def main() -> int:
    """Download the wheels; 1 where pip fails, or they are larger than ``_LARGEST`` together."""
    done = _download("run.txt", _FOLDER) and _download("cuda.txt", _SPARE, {"numba-cuda"})
    found = list(_FOLDER.rglob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in found)
    print(f"{len(found)} wheels, {size / 2**20:.1f} MiB, in {_FOLDER}")
    return int(not done or size > _LARGEST)


if __name__ == "__main__":
    sys.exit(main())
