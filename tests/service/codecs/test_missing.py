from __future__ import annotations

import pytest

from service.codecs.missing import listed, missing


@pytest.mark.parametrize(
    ("others", "text"),
    [
        ((), "holds no labels, only: logits"),
        (("step",), "holds no labels, only: logits, 'step'"),
        (
            ("step", "targets"),
            "holds no labels, only: logits, 'step', 'targets'; call 'targets' labels if that is it",
        ),
    ],
)
def test_what_a_file_holds_instead(others: tuple[str, ...], text: str) -> None:
    assert missing("labels", {"logits": 1}, others, "call {} labels".format) == text


def test_nothing() -> None:
    assert missing("labels", (), (), str) == "holds no labels, only: nothing"


def test_of_many_names_the_first_are_listed() -> None:
    text = listed([f"n{number}" for number in range(1230)])
    assert text.startswith("'n0', 'n1', ")
    assert text.endswith("'n19' and 1,210 more")
