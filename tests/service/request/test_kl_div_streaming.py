"""Divergences of large bodies: streamed where one of both tensors comes last; the same bits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fastapi import FastAPI

from kernels import dtypes
from service import regimes
from service.memory import sliding
from service.request.plan import Plan, Streamed, Whole
from tests.service import wire
from tests.service.codecs.safetensors_bodies import packed
from tests.service.request.test_streaming import app, asked, planned, run, smaller

__all__ = ["app", "planned", "smaller"]  # fixtures
pytestmark = pytest.mark.skipif(not sliding.available(), reason="this system moves no pages")
RANDOM = np.random.default_rng(5)
ROWS, CLASSES = (8, 251), 1501  # so that no tensor lies across its addresses
STUDENT = RANDOM.normal(0, 3, (*ROWS, CLASSES)).astype(np.float32)
TEACHER = STUDENT + RANDOM.normal(0, 0.5, STUDENT.shape).astype(np.float32)
TOP = {
    "target_classes": np.tile(np.arange(10, dtype=np.int64), (*ROWS, 1)),
    "target_top_log_probs": np.full((*ROWS, 10), -3.0),
}
SIDE = {"labels": RANDOM.integers(0, CLASSES, ROWS), "mask": RANDOM.random(ROWS) < 0.9}
QUERY = b"outputs=loss,per_element,same_top,delta_p,count&shift=2&class_axis=-1"


def body_of(tensors: dict[str, wire.Array]) -> bytes:
    """A body of ``tensors`` in their order."""
    header, data, at = {}, [], 0
    for name, array in tensors.items():
        row = dtypes.of(array) or dtypes.BOOL
        data.append(array.tobytes())
        offsets = [at, at := at + len(data[-1])]
        header[name] = {"dtype": row.safetensors, "shape": array.shape, "data_offsets": offsets}
    text = json.dumps(header)
    return packed(text.ljust(-(-len(text) // 8) * 8), b"".join(data))


async def answered(app: FastAPI, body: bytes) -> bytes:
    request = asked(app, body, QUERY)
    request._scope |= {"path": "/v1/kl_div", "raw_path": b"/v1/kl_div"}
    await run(request)
    assert request.status == 200, request.content
    return request.content


# Tensors in the order of the body, and the share of it that is held, or None where all of it is.
CASES: dict[str, tuple[dict[str, wire.Array], float | None]] = {
    "targets first": ({**SIDE, "target_logits": TEACHER, "logits": STUDENT}, 0.75),
    # The library of safetensors writes them so.
    "targets last": ({**SIDE, "logits": STUDENT, "target_logits": TEACHER}, 0.75),
    "converted targets last": (
        {**SIDE, "logits": STUDENT, "target_logits": TEACHER.astype(np.float64)},
        None,
    ),
    "labels last": ({"target_logits": TEACHER, "logits": STUDENT, **SIDE}, None),
    "sparse": ({**SIDE, **TOP, "logits": STUDENT}, 0.6),
    "converted targets": (
        {**SIDE, "target_logits": TEACHER.astype(np.float64), "logits": STUDENT},
        None,
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_the_same_bits_as_in_memory_of_the_whole(
    app: FastAPI, planned: list[Plan], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    tensors, share = CASES[case]
    body = body_of(tensors)
    got = await answered(app, body)
    [plan] = planned
    if share is None:
        assert isinstance(plan, Whole)
    else:
        assert isinstance(plan, Streamed)
        assert plan.held <= share * len(body)
    monkeypatch.setattr(regimes, "STREAMED_BODY_BYTES", 2**40)
    assert got == await answered(app, body)
    assert len(planned) == 1
