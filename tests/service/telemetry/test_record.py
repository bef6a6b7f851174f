"""Sizes of a request's logits, whatever their rank and the option ``class_axis`` are."""

from __future__ import annotations

import numpy as np
import pytest

from service.telemetry.record import sizes


@pytest.mark.parametrize(
    ("shape", "class_axis", "want"),
    [
        ((), None, (1, 1, 1)),
        ((), 0, (1, 1, 1)),
        ((), -1, (1, 1, 1)),
        ((3,), None, (3, 1, 1)),
        ((3,), 1, (3, 3, 1)),
        ((2, 3), None, (6, 2, 2)),
        ((2, 3), -1, (6, 2, 2)),
        ((2, 3), -3, (6, 6, 2)),
        ((2, 3), 2**62, (6, 6, 2)),
        ((0,), None, (0, 0, 1)),
        ((4, 0), None, (0, 0, 4)),
    ],
)
def test_logits_positions_and_rows(
    shape: tuple[int, ...], class_axis: int | None, want: tuple[int, int, int]
) -> None:
    assert sizes(shape, np.dtype(np.float32), class_axis, "cpu")[1:] == want
