"""Overlap of copies and kernels in a time line."""

from __future__ import annotations

import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

from benchmarks.cuda.timeline import Span, summary


def test_what_is_hidden_is_what_goes_on_during_copies() -> None:
    spans = [
        Span("to device", 0.0, 2.0),
        Span("kernels", 2.0, 3.0),
        Span("to device", 2.0, 4.0),
        Span("kernels", 3.5, 4.5),
        Span("kernels", 4.25, 5.0),
        Span("to host", 6.0, 7.0),
    ]
    got = summary(spans)
    assert got["to device"] == 4.0
    assert got["kernels"] == 2.5
    assert got["any"] == 6.0
    assert got["from first to last"] == 7.0
    assert got["kernels hidden"] == pytest.approx(1.5 / 2.5)
