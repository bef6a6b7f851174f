"""A plan follows from a body's length, and of a large one from its head."""

from __future__ import annotations

import pytest

from service import regimes
from service.request.plan import AtOnce, Plan, Whole, plan_of_length


@pytest.mark.parametrize(
    ("length", "plan"),
    [
        (None, AtOnce(None)),
        (0, AtOnce(0)),
        (regimes.AT_ONCE_BODY_BYTES, AtOnce(regimes.AT_ONCE_BODY_BYTES)),
        (regimes.AT_ONCE_BODY_BYTES + 1, Whole(regimes.AT_ONCE_BODY_BYTES + 1)),
        (regimes.STREAMED_BODY_BYTES - 1, Whole(regimes.STREAMED_BODY_BYTES - 1)),
    ],
)
def test_a_length_decides_below_the_streamed_ones(length: int | None, plan: Plan) -> None:
    made = plan_of_length(length)
    assert (type(made), made) == (type(plan), plan)
