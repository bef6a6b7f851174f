"""Compilation for the GPU before the first request: plain losses of every shape, and the self-test.

Numba caches none of it: each process compiles anew. Other outputs and options are compiled on first
use.
"""

from __future__ import annotations

import numpy as np

import kernels
from kernels import warm
from kernels.cuda.kinds import TABLE
from kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32

EAGER = (FLOAT32, FLOAT16, BFLOAT16)
# One of each shape of the table, the last in one segment and in two.
CLASSES = (*(min(shape.classes, TABLE.segment) for shape in TABLE.rows), TABLE.segment + 1)


def compile_common() -> None:
    """Run the kernels for common requests once each, and check the worked example.

    Raises ``SelfTestFailed``, and the errors of ``devices.in_steps``.
    """
    for dtype in EAGER:
        name = dtype.name if dtype.size == 2 else None
        for shape in (*((1, classes) for classes in CLASSES), (1, 3, 2)):
            zeros = np.zeros(shape, f"u{dtype.size}" if name else dtype.load)
            labels = np.zeros((1, *shape[2:]), np.int64)
            kernels.cross_entropy(zeros, labels, logits_dtype=name, device="cuda")
            if dtype is FLOAT32 and len(shape) == 3:
                kernels.softmax(zeros, device="cuda")
    warm.check("cuda")
