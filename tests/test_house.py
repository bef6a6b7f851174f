"""House rules that a machine can check: imports and lengths."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 300  # lines: about five screens

# llvmlite is how Numba's intrinsics are written, and comes with it.
KERNELS_MAY_IMPORT = {"kernels", "numba", "numpy", "llvmlite"} | sys.stdlib_module_names

# Layers of the service from the bottom up: a module imports from its own package and from lower
# layers. Packages of one layer do not import each other. CONTRIBUTING.md has the same table.
LAYERS = (
    (
        "service",
        "service.settings",
        "service.cgroups",
        "service.regimes",
        "service.errors",
        "service.page",
    ),
    ("service.codecs", "service.problems"),
    ("service.options", "service.memory", "service.telemetry", "service.middleware"),
    ("service.protocol", "service.compute"),
    ("service.request",),
    ("service.routes", "service.process", "service.bulk"),
    ("service.app",),
    ("service.cli",),
)
MOST_LAYERS = 8
LAYER = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}

# Modules that make any object, or call any function, that bytes from a client name.
NEVER_IMPORTED = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "multipart"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """The full name of every module, or name within one, that ``path`` imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)}: imports are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(module: str) -> str | None:
    """The longest name in the table that ``module`` is, or lies in."""
    parts = module.split(".")
    names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((name for name in names if name in LAYER), None)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", sources("kernels"), ids=named)
def test_kernels_import_numpy_and_numba_and_nothing_else(path: Path) -> None:
    assert {name.partition(".")[0] for name in imports(path)} <= KERNELS_MAY_IMPORT


# Targets of the kernels, and who may not import them.
APART = {"kernels/cpu": "kernels.cuda", "kernels/cuda": "kernels.cpu", "service": "kernels.cpu"}


@pytest.mark.parametrize("folder", APART)
def test_targets_are_apart(folder: str) -> None:
    """``kernels.plan``, ``options`` and ``formula`` are what both targets share."""
    files = sources(folder)
    assert files
    for path in files:
        assert not [name for name in imports(path) if name.startswith(APART[folder])], named(path)


# Folders of each target's kernels from the bottom up: a module imports from its own folder, from
# lower layers, and from the modules beside the folders, which import from none of them.
TARGETS = {
    "cpu": (("sums",), ("outputs", "plain"), ("likeliest", "divergence"), ("loss",), ("launch",)),
    "cuda": (("device", "divergence", "sums"), ("loss",), ("outputs",), ("launch",)),
}
HEIGHT = {
    (target, folder): layer
    for target, layers in TARGETS.items()
    for layer, folders in enumerate(layers)
    for folder in folders
}


def folder_of(module: str) -> str:
    """Folder of a target that ``module`` is or lies in; "" for the modules beside these."""
    _, target, name, *_ = module.split(".")
    return name if (ROOT / "kernels" / target / name).is_dir() else ""


@pytest.mark.parametrize("target", TARGETS)
def test_every_folder_of_a_target_has_a_layer(target: str) -> None:
    files = sources(f"kernels/{target}")
    found = {(target, path.parent.name) for path in files if path.parent.parent.name == target}
    assert found == {key for key in HEIGHT if key[0] == target}


@pytest.mark.parametrize("path", sources("kernels/cpu", "kernels/cuda"), ids=named)
def test_kernels_import_from_lower_layers(path: Path) -> None:
    _, target, *folders = path.parent.relative_to(ROOT).parts
    own = folders[0] if folders else ""
    for name in imports(path):
        if not name.startswith(f"kernels.{target}."):
            continue
        folder = folder_of(name)
        if folder not in (own, ""):
            assert own, f"{named(path)} imports {name}"
            assert HEIGHT[target, folder] < HEIGHT[target, own], f"{named(path)} imports {name}"


def test_layers_are_few_and_those_of_contributing() -> None:
    assert len(LAYERS) <= MOST_LAYERS
    lines = re.findall(r"(?m)^\d+\. (`.*)$", (ROOT / "CONTRIBUTING.md").read_text())
    listed = [re.findall(r"`(\w+)`", line) for line in lines]
    below = [[name.removeprefix("service.") for name in packages] for packages in LAYERS]
    assert listed == [[name for name in names if name != "service"] for names in below]


@pytest.mark.parametrize("path", sources("service"), ids=named)
def test_imports_are_from_lower_layers(path: Path) -> None:
    own = package_of(module_of(path))
    assert own is not None
    if own == "service" and module_of(path) != "service":
        pytest.fail(f"{named(path)} has no layer in the table")
    for name in imports(path):
        if name.partition(".")[0] != "service":
            continue
        package = package_of(name)
        assert package is not None
        if package != own:
            assert LAYER[package] < LAYER[own], f"{module_of(path)} imports {name}"


@pytest.mark.parametrize("package", ["kernels", "service", "benchmarks"])
def test_no_module_imports_itself_by_a_detour(package: str) -> None:
    """Imports within functions count too."""
    paths = {module_of(path): path for path in sources(package)}
    edges = {
        module: {name for name in imports(path) if name in paths and name != module}
        for module, path in paths.items()
    }
    # A package's __init__ is imported before its modules, whichever way leads there.
    for module in edges:
        edges[module] -= {other for other in edges if module.startswith(f"{other}.")}
    done: set[str] = set()
    while ready := {module for module in edges.keys() - done if edges[module] <= done}:
        done |= ready
    assert not edges.keys() - done, f"imported in a circle: {sorted(edges.keys() - done)}"


@pytest.mark.parametrize("path", sources("kernels", "service", "benchmarks"), ids=named)
def test_nothing_imports_the_application_but_its_command(path: Path) -> None:
    if named(path) != "service/cli/serve.py":
        assert not [name for name in imports(path) if name.startswith("service.app")]


@pytest.mark.parametrize("path", sources("kernels", "service"), ids=named)
def test_nothing_runs_what_a_client_sends(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports(path)} & NEVER_IMPORTED
    called = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "compile", "__import__"}


@pytest.mark.parametrize("path", sources("kernels", "service", "benchmarks"), ids=named)
def test_no_module_is_longer_than_five_screens(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST
