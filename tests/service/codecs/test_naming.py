"""Misspelled names that are found, and names of something else, which are not."""

from __future__ import annotations

import pytest

from service.codecs.naming import Spellings

NAMES = ("outputs", "ignore_index", "z_loss", "empty")


@pytest.mark.parametrize("name", NAMES)
def test_one_edit_is_found_wherever_it_is(name: str) -> None:
    spellings = Spellings(NAMES)
    for at in range(len(name)):
        edits = (
            name[:at] + name[at + 1 :],
            name[:at] + "q" + name[at:],
            name[:at] + "q" + name[at + 1 :],
            name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
        )
        assert {spellings.meant(edit) for edit in edits} == {name}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("IGNORE-INDEX", "ignore_index"),
        ("ignoreIndex", "ignore_index"),
        ("ignore_idx", "ignore_index"),
        ("ignore index", "ignore_index"),
        ("zLoss", "z_loss"),
        ("loss", None),
        ("index", None),
        ("epoch", None),
        ("entry", None),
        ("output_dir", None),
        ("ignore_index_of_padding", None),
        ("outputs" * 1000, None),
        ("", None),
        ("\ud800", None),
    ],
)
def test_other_names_are_left_alone(text: str, meant: str | None) -> None:
    assert Spellings(NAMES).meant(text) == meant


def test_without_names_nothing_is_meant() -> None:
    assert Spellings(()).meant("outputs") is None
