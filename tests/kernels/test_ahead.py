"""Kernels compiled for another CPU than this one, and those that an installation holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from numba import config, types

from kernels import ahead, cache, compiled, reduce
from kernels.compiling import ChildFailed


def add(a: Any, b: Any) -> Any:
    return a + b


SIGNATURE = (types.float64, types.float64)
CPU = "x86-64"  # the oldest: no machine's own


def test_what_is_loaded_is_known_by_signature() -> None:
    dispatcher: Any = compiled.kernel(add)
    dispatcher.compile(SIGNATURE)
    assert ahead.Compiled(__name__, f"{__name__}.add", SIGNATURE) in ahead.loaded()


def test_a_kernel_is_compiled_for_a_cpu_without_being_run(tmp_path: Path) -> None:
    counts: list[tuple[int, int]] = []
    sums: Any = reduce._sum_blocks
    reduce.sum_all_blocks([[1.0, 2.0], [3.0, 4.0]])  # type: ignore[arg-type]
    wanted = [each for each in ahead.loaded() if each.function == sums._cache.function]
    assert wanted
    variables = {
        "NUMBA_CPU_NAME": CPU,
        "NUMBA_CPU_FEATURES": "+sse2",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    ahead.compile_for(variables, wanted, 2, lambda done, total: counts.append((done, total)))
    assert counts[-1][1] == len(wanted)
    made = {path.name for path in tmp_path.rglob("*.kernel")}
    assert len(made) == len(wanted)
    own = {sums._cache._name(each.signature, sums.targetctx.codegen()) for each in wanted}
    assert not made & own, "it is compiled for another CPU"


def test_what_cannot_be_compiled_is_told(tmp_path: Path) -> None:
    wanted = [ahead.Compiled("kernels.reduce", "kernels.reduce.no_such_function", SIGNATURE)]
    with pytest.raises(ChildFailed, match="status 1"):
        ahead.compile_for({"NUMBA_CACHE_DIR": str(tmp_path)}, wanted, 1)


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The folder of an installation's kernels for a CPU that Numba was told of; another cache."""
    folder = tmp_path / "share/lossd" / CPU / "lossd"
    own = tmp_path / "cache"
    for path in (folder, own):
        path.mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(config, "CPU_NAME", CPU)
    monkeypatch.setattr(cache, "folder", lambda: folder)
    dispatcher: Any = compiled.kernel(add)
    dispatcher.compile(SIGNATURE)
    monkeypatch.setattr(cache, "folder", lambda: own)
    cache.shipped.cache_clear()
    yield folder
    cache.shipped.cache_clear()


def compiled_or_loaded() -> bool:
    dispatcher: Any = compiled.kernel(add)
    dispatcher.compile(SIGNATURE)
    assert dispatcher(2.0, 3.0) == 5.0
    return bool(dispatcher._cache_hits[SIGNATURE])


def test_an_installations_kernels_are_loaded_and_not_copied(shipped: Path) -> None:
    assert compiled_or_loaded()
    assert not [*Path(cache.folder() or "").iterdir()]


def test_damage_to_them_is_seen_and_they_are_not_written(
    shipped: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_once", set())
    [path] = shipped.iterdir()
    damaged = path.read_bytes()[:-1] + b"?"
    path.write_bytes(damaged)
    assert not compiled_or_loaded()
    assert "is damaged (checksum)" in caplog.text
    assert path.read_bytes() == damaged
    assert compiled_or_loaded(), "from the cache, by now"


def test_a_folder_that_anybody_may_write_to_is_not_used(
    shipped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shipped.chmod(0o777)
    assert not compiled_or_loaded()
    assert "are not used: another user may write to it" in caplog.text


def test_natively_no_installations_kernels_are_used(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "CPU_NAME", None)
    cache.shipped.cache_clear()
    assert cache.shipped() is None
