"""Regions: which may be registered, what requests see of them, and what becomes of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.codecs.infer_request import Region
from service.errors import NotOffered, UnknownRegion, UnusableRegion
from service.shared_memory import Loan, Regions
from tests.service.shared import region

CONTENT = bytes(range(256)) * 32


@pytest.fixture
def regions() -> Regions:
    return Regions(allowed=True)


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_a_region_is_what_the_client_sees(regions: Regions, slashes: str) -> None:
    with region(CONTENT) as path:
        regions.register("r", slashes + path.name, 256, 512)
        entry = {"name": "r", "key": slashes + path.name, "offset": 256, "byte_size": 512}
        assert regions.status(None) == regions.status("r") == [entry]
        loan = Loan(regions)
        view = loan.view(Region("r", 8, 16))
        assert bytes(view) == CONTENT[264:280]
        view[:] = 7
        with path.open("rb") as file:
            assert file.read()[262:282] == CONTENT[262:264] + b"\7" * 16 + CONTENT[280:282]
        loan.check()
        assert path.exists()


def test_unregistering_waits_for_who_uses_it(regions: Regions) -> None:
    with region(CONTENT) as path:
        regions.register("r", path.name, 0, 1024)
        loan = Loan(regions)
        view = loan.view(Region("r", 0, 1024))
        regions.unregister("r")
        path.unlink()
        assert bytes(view) == CONTENT[:1024]
        # A request goes on with what it began with.
        assert bytes(loan.view(Region("r", 0, 4))) == CONTENT[:4]
        loan.check()
        with pytest.raises(UnknownRegion, match="no shared memory region 'r'"):
            Loan(regions).view(Region("r", 0, 1024))


def test_unregistering_one_or_all(regions: Regions) -> None:
    with region(CONTENT) as path:
        for name in ("a", "b", "c"):
            regions.register(name, path.name, 0, 1024)
        regions.unregister("b")
        regions.unregister("never there")
        assert [entry["name"] for entry in regions.status(None)] == ["a", "c"]
        regions.unregister(None)
        assert regions.status(None) == []
        with pytest.raises(UnknownRegion):
            regions.status("a")


def test_a_region_that_shrinks_is_an_error_until_it_is_registered_again(regions: Regions) -> None:
    with region(CONTENT) as path:
        regions.register("r", path.name, 0, len(CONTENT))
        loan = Loan(regions)
        view = loan.view(Region("r", 0, len(CONTENT)))
        os.truncate(path, 4096)
        view.sum()
        for use in (loan.check, lambda: Loan(regions).view(Region("r", 0, 1))):
            with pytest.raises(UnusableRegion, match="made smaller"):
                use()
        # It has its size again, but the mapping is one of zeros.
        os.truncate(path, len(CONTENT))
        with pytest.raises(UnusableRegion, match="made smaller"):
            Loan(regions).view(Region("r", 0, 1))
        regions.unregister("r")
        regions.register("r", path.name, 0, len(CONTENT))
        assert bytes(Loan(regions).view(Region("r", 0, 4096))) == CONTENT[:4096]


@pytest.mark.parametrize(
    ("offset", "size"), [(1024, 1), (0, 1025), (1023, 2), (2**63 - 1, 2**63 - 1), (2**62, 1)]
)
def test_nothing_beyond_a_region_is_seen(regions: Regions, offset: int, size: int) -> None:
    with region(CONTENT) as path:
        regions.register("r", path.name, 0, 1024)
        with pytest.raises(UnusableRegion, match="has 1,024 bytes"):
            Loan(regions).view(Region("r", offset, size))
        assert Loan(regions).view(Region("r", 1024, 0)).size == 0


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 8193), (8192, 1), (8193, 0), (0, 0), (1, 2**63 - 1), (2**63 - 1, 2**63 - 1)],
)
def test_nothing_beyond_the_memory_is_registered(regions: Regions, offset: int, size: int) -> None:
    with region(CONTENT) as path, pytest.raises(UnusableRegion, match="does not have"):
        regions.register("r", path.name, offset, size)
    assert regions.status(None) == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        ".",
        "..",
        "../etc/passwd",
        "/../etc/passwd",
        "/dev/shm/x",
        "a/../b",
        "a/b",
        " ..",
        ".hidden",
        "a\0b",
        "a\nb",
        "é",
        "x" * 256,
    ],
)
def test_keys_are_names(regions: Regions, key: str) -> None:
    with pytest.raises(UnusableRegion, match="must be a name"):
        regions.register("r", key, 0, 1)


def test_only_regular_files_are_mapped(regions: Regions, tmp_path: Path) -> None:
    target = tmp_path / "secret"
    target.write_bytes(CONTENT)
    with region(0) as link, region(0) as pipe, region(0) as folder:
        for path in (link, pipe, folder):
            path.unlink()
        link.symlink_to(target)
        os.mkfifo(pipe)
        folder.mkdir()
        for path in (link, pipe, folder):
            with pytest.raises(UnusableRegion):
                regions.register("r", path.name, 0, 1)
        folder.rmdir()
    with pytest.raises(UnusableRegion, match="cannot be opened"):
        regions.register("r", "lossd-test-that-is-not-there", 0, 1)


def test_a_name_is_registered_once(regions: Regions) -> None:
    with region(CONTENT) as path:
        regions.register("r", path.name, 0, 1)
        with pytest.raises(UnusableRegion, match="registered already"):
            regions.register("r", path.name, 0, 1)


def test_the_prefix_is_required() -> None:
    regions = Regions(allowed=True, prefix="lossd-test")
    with region(CONTENT) as path, region(CONTENT, "other") as other:
        regions.register("r", "/" + path.name, 0, 1)
        with pytest.raises(UnusableRegion, match="a name that starts with lossd-test, not a path"):
            regions.register("s", other.name, 0, 1)


def test_it_is_off_by_default() -> None:
    from service.settings import Settings

    assert not Settings().allow_shared_memory
    regions = Regions(allowed=False)
    with region(CONTENT) as path, pytest.raises(NotOffered, match="--allow-shared-memory"):
        regions.register("r", path.name, 0, 1)
    regions.unregister(None)
    assert regions.status(None) == []


def test_no_process_is_told_to_unlink_it(regions: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    from multiprocessing import resource_tracker

    told: list[Any] = []
    monkeypatch.setattr(resource_tracker, "register", lambda *given: told.append(given))
    with region(CONTENT) as path:
        regions.register("r", path.name, 0, 1)
        assert np.array_equal(Loan(regions).view(Region("r", 0, 1)), [0])
    assert not told
