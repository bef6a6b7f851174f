"""Regions: which may be registered, what requests see of them, and what becomes of them."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.codecs.v2.request import Region
from service.errors import NotOffered, Overloaded, UnknownRegion, UnusableRegion
from service.memory import sigbus
from service.memory.regions import Loan, Regions
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


@pytest.mark.parametrize(
    "fault", [ValueError("mmap length is greater than file size"), OSError(22, "Invalid argument")]
)
def test_memory_that_shrinks_while_it_is_registered_is_the_clients_error(
    regions: Regions, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def vanished(*arguments: Any) -> Any:
        raise fault

    with region(CONTENT) as path, monkeypatch.context() as patched:
        patched.setattr("service.memory.regions.mmap.mmap", vanished)
        with pytest.raises(UnusableRegion, match=r"does not have|cannot be mapped"):
            regions.register("r", path.name, 0, len(CONTENT))
    assert regions.status(None) == []


def test_memory_that_shrinks_between_two_looks_at_it(
    regions: Regions, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.fstat

    with region(CONTENT) as path:

        def shrinking(descriptor: int) -> os.stat_result:
            found = stat(descriptor)
            os.truncate(path, 100)
            return found

        with monkeypatch.context() as patched:
            patched.setattr("service.memory.regions.os.fstat", shrinking)
            with pytest.raises(UnusableRegion, match="does not have 8,192 bytes"):
                regions.register("r", path.name, 0, len(CONTENT))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
@pytest.mark.parametrize("call", ["os.open", "mmap.mmap"])
def test_what_the_server_lacks_is_no_fault_of_the_client(
    regions: Regions, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def lacking(*arguments: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with region(CONTENT) as path, monkeypatch.context() as patched:
        patched.setattr(f"service.memory.regions.{call}", lacking)
        with pytest.raises(Overloaded, match="cannot be"):
            regions.register("r", path.name, 0, len(CONTENT))


def test_the_limit_of_regions_is_named(regions: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sigbus, "MOST", 3)
    monkeypatch.setattr(sigbus, "_mappings", np.zeros((3, 3), np.int64))
    with region(CONTENT) as path:
        for name in "abc":
            regions.register(name, path.name, 0, 64)
        for _ in range(2):
            with pytest.raises(UnusableRegion, match="1,024 shared memory regions"):
                regions.register("d", path.name, 0, 64)
        regions.unregister("b")
        regions.register("d", path.name, 0, 64)


@pytest.mark.parametrize("letter", ["x", "é", "\0", "\ud800"])
def test_names_are_bounded_in_bytes(regions: Regions, letter: str) -> None:
    size = len(letter.encode("utf-8", "surrogatepass"))
    longest = letter * (256 // size)
    with region(CONTENT) as path:
        regions.register(longest, path.name, 0, 64)
        with pytest.raises(UnusableRegion, match="at most 256 bytes"):
            regions.register(longest + letter, path.name, 0, 64)
    assert [entry["name"] for entry in regions.status(None)] == [longest]


# By name and byte: "twin" is the same memory, 64 bytes further on; "other" is other memory.
@pytest.mark.parametrize(
    ("read", "written", "fault"),
    [
        ([("r", 0, 64)], [("r", 0, 64)], "output '0' and input '0' share 64 bytes"),
        ([("r", 0, 64)], [("r", 63, 8)], "output '0' and input '0' share 1 bytes"),
        ([("r", 0, 8), ("r", 64, 8)], [("twin", 4, 8)], "output '0' and input '1' share 4 bytes"),
        ([], [("r", 0, 8), ("r", 8, 8), ("twin", 0, 8)], None),
        ([], [("r", 0, 8), ("r", 4, 8)], "output '1' and output '0' share 4 bytes"),
        ([], [("r", 70, 2), ("twin", 0, 64)], "output '1' and output '0' share 2 bytes"),
        ([("r", 0, 64)], [("r", 64, 8), ("other", 0, 64), ("twin", 8, 8)], None),
        ([("r", 0, 64), ("r", 0, 64)], [], None),
        ([("r", 8, 8)], [("r", 8, 0)], None),
    ],
)
def test_outputs_lie_apart(
    regions: Regions,
    read: list[tuple[str, int, int]],
    written: list[tuple[str, int, int]],
    fault: str | None,
) -> None:
    with region(CONTENT) as path, region(CONTENT) as other:
        regions.register("r", path.name, 0, 256)
        regions.register("twin", path.name, 64, 64)
        regions.register("other", other.name, 0, 64)
        loan = Loan(regions)
        inputs, outputs = (
            {str(index): Region(*place) for index, place in enumerate(places)}
            for places in (read, written)
        )
        for place in (*inputs.values(), *outputs.values()):
            loan.view(place)
        with nullcontext() if fault is None else pytest.raises(UnusableRegion, match=fault):
            loan.check_apart(inputs, outputs)
