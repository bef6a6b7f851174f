"""A footprint is what the work itself says, and reads no element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels import steps

LOGITS = np.zeros((4007, 1501), np.float32)
LABELS = np.full(4007, -1)  # no class: it would be refused where it is read
STEP = 2**19
LOSSES = ("loss", "per_element", "gradient", "rank")


@pytest.mark.parametrize(
    ("work", "footprint"),
    [
        (
            steps.cross_entropy(LOGITS, LABELS, outputs=LOSSES, step=STEP),
            steps.footprint(LOGITS, LABELS, outputs=LOSSES, step=STEP),
        ),
        (
            steps.nll_loss(LOGITS, LABELS, outputs=("loss",), step=STEP),
            steps.footprint(LOGITS, LABELS, outputs=("loss",), normalised=True, step=STEP),
        ),
        (steps.log_softmax(LOGITS, step=STEP), steps.footprint(LOGITS, step=STEP)),
        (steps.softmax(LOGITS, step=STEP), steps.footprint(LOGITS, step=STEP)),
        (
            steps.softmax(LOGITS, class_axis=0, step=STEP),
            steps.footprint(LOGITS, class_axis=0, step=STEP),
        ),
    ],
)
def test_it_is_that_of_the_work(work: Any, footprint: steps.Footprint) -> None:
    assert footprint == (work.result_bytes, work.window)
