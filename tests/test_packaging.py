"""Locks and the distribution: what is shipped, and that the two agree."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {path.stem: path.read_text() for path in (ROOT / "requirements").glob("*.txt")}
PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)", re.MULTILINE)

OURS = {"kernels", "service", "benchmarks", "deploy", "tests"}
# A dependency's own base, of which it takes one version and no other: not ours to choose.
INHERITED = {"llvmlite", "starlette", "cuda"}
# Distributions of modules that are called otherwise.
DISTRIBUTIONS = {"opentelemetry": "opentelemetry-sdk", "yaml": "pyyaml"}


def pins(lock: str) -> dict[str, str]:
    return {pin["name"]: pin["version"] for pin in PIN.finditer(LOCKS[lock])}


def declared(*extras: str) -> list[Requirement]:
    texts = [*PROJECT["dependencies"]]
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


def imported(package: str) -> set[str]:
    """The top-level names that ``package``'s modules import or read the files of.

    The standard library's are left out.
    """
    names: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "files":
                names |= {str(item.value) for item in node.args if isinstance(item, ast.Constant)}
    return names - set(sys.stdlib_module_names)


def test_there_is_a_lock_for_each_use() -> None:
    assert set(LOCKS) == {"run", "dev", "build", "cuda"}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_and_hashes_and_names_no_place(lock: str) -> None:
    text = LOCKS[lock]
    assert "/" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    requirements = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
    for requirement in requirements:
        assert PIN.match(requirement), requirement
        assert "--hash=sha256:" in requirement


@pytest.mark.parametrize(
    ("lock", "extras"), [("run", []), ("dev", ["dev"]), ("cuda", ["cuda"])], ids=str
)
def test_a_lock_holds_what_the_project_declares(lock: str, extras: list[str]) -> None:
    locked = pins(lock)
    for requirement in declared(*extras):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)])


def test_the_locks_agree() -> None:
    run, dev, build, cuda = (pins(name) for name in ("run", "dev", "build", "cuda"))
    assert run.items() <= dev.items()
    assert build.items() <= dev.items()
    assert run.items() <= cuda.items() <= dev.items()


def test_what_runs_on_the_cpu_has_nothing_of_cuda() -> None:
    def nvidias(lock: str) -> list[str]:
        return [name for name in pins(lock) if re.search("cuda|nvidia", name)]

    assert len(nvidias("cuda")) > 5
    assert not nvidias("run")
    assert not nvidias("build")


def test_no_peer_is_locked() -> None:
    peers = {
        canonicalize_name(Requirement(text).name)
        for text in PROJECT["optional-dependencies"]["bench"]
    }
    assert not peers & pins("dev").keys()


@pytest.mark.parametrize(
    ("package", "extras"),
    [("kernels", []), ("service", ["otel"]), ("benchmarks", []), ("tests", ["dev"])],
    ids=["kernels", "service", "benchmarks", "tests"],
)
def test_what_is_imported_is_declared(package: str, extras: list[str]) -> None:
    names = {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in imported(package)} - OURS
    assert names <= {requirement.name for requirement in declared(*extras)} | INHERITED


def test_what_the_tests_need_is_installed() -> None:
    """Tests of an optional package are skipped without it: here that would hide them."""
    for requirement in declared("dev"):
        if requirement.marker is None or requirement.marker.evaluate():
            assert requirement.specifier.contains(metadata.version(requirement.name))


def test_what_is_installed_is_this_tree() -> None:
    try:
        installed = metadata.distribution("lossd")
    except metadata.PackageNotFoundError:
        pytest.skip("run from a tree that is not installed")
    assert installed.version == PROJECT["version"]
    [script] = [entry for entry in installed.entry_points if entry.group == "console_scripts"]
    assert (script.name, script.value) == ("lossd", PROJECT["scripts"]["lossd"])


def test_the_wheel_holds_the_page() -> None:
    included = {
        Path(file.distribution_path) for file in WheelBuilder(str(ROOT)).recurse_included_files()
    }
    page = {
        path.relative_to(ROOT) for path in (ROOT / "service" / "page").iterdir() if path.is_file()
    }
    assert len(page) > 20
    assert page <= included
