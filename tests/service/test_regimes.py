"""The table in ``docs/regimes.md`` has the sizes that the modules have."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from kernels.cpu.launch import loss
from service import regimes
from service.memory.pages import HUGE

ROW = re.compile(r"^\| `([\w.]+)` \| ([\d.]+) \|", re.MULTILINE)
TABLE = dict(ROW.findall((Path(__file__).parents[2] / "docs/regimes.md").read_text()))
SIZES = {name: value for name, value in vars(regimes).items() if name.isupper()}


def test_every_size_of_the_service_is_in_the_table_and_no_other() -> None:
    assert {name for name in TABLE if "." not in name} == SIZES.keys()


@pytest.mark.parametrize("name", TABLE)
def test_the_table_has_the_size(name: str) -> None:
    module, _, constant = f"service.regimes.{name}".rpartition(".")
    if "." in name:
        module, _, constant = name.rpartition(".")
    assert float(TABLE[name]) == getattr(import_module(module), constant)


@pytest.mark.parametrize("name", SIZES)
def test_a_size_names_its_unit(name: str) -> None:
    assert name.rpartition("_")[2] in {"BYTES", "LOGITS", "PERCENT", "SECONDS", "TURNS", "LEASES"}


def test_sizes_fit_each_other() -> None:
    assert regimes.AT_ONCE_LOGITS == loss.SERIAL
    assert regimes.STREAMED_AHEAD_BYTES >= HUGE
    assert (
        regimes.JOINED_BODY_BYTES
        < regimes.AT_ONCE_BODY_BYTES
        < regimes.EARLY_BODY_BYTES
        < regimes.STREAMED_BODY_BYTES
    )
