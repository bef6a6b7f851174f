"""Compiling before the first request: what is common, once a machine, then checked.

Processes that share a cache take turns (a file lock): Numba's cache can be read by many but is
not safe to build by several at once (numba #4807, #10434).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numba import config

import kernels
from kernels import dtypes
from kernels.cpu.launch import SERIAL

try:
    import fcntl
except ImportError:  # Windows has no fcntl, and its workers compile side by side
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)
# float64 and mixed types of logits and probabilities are compiled when first asked for.
EAGER = (dtypes.FLOAT32, dtypes.BFLOAT16, dtypes.FLOAT16)
# The worked example: PyTorch's loss of it is 1.5722.
_PRED = ((0, 0, 0, 0, 0), (0, 0, 1, 1, 0), (1, 3, 2, 3, 0), (0, 0, 0, 0, 0))
_TARGET = (1, 4, 3, 2)
_LOSS = 1.5721803


class SelfTestFailed(RuntimeError):
    """The kernels give another loss for the worked example than they must."""


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Holds the cache's lock, which does not nest; without one where the cache is read-only."""
    folder = Path(config.CACHE_DIR or Path(__file__).parent / "__pycache__")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lossd.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        yield
        return
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _compile(dtype: dtypes.DType) -> None:
    """Runs each kernel once for ``dtype``, on one thread and on many."""
    for rows in (1, SERIAL // 64 + 64):
        logits = np.zeros((rows, 64), dtype.load)
        labels = np.zeros(rows, np.int64)
        name = dtype.name if dtype.size == 2 else None
        bits = logits.view(np.uint16) if name else logits
        kernels.cross_entropy(bits, labels, logits_dtype=name)
        if dtype is dtypes.FLOAT32:
            kernels.nll_loss(logits, labels)
            kernels.softmax(logits)


def _check() -> None:
    """Compares the worked example, contiguous and strided, with its known loss."""
    pred = np.array(_PRED, dtypes.FLOAT32.numpy)
    answers: list[Any] = [
        kernels.cross_entropy(pred, _TARGET),
        kernels.cross_entropy(np.asfortranarray(pred), _TARGET),
        kernels.nll_loss(kernels.log_softmax(pred), _TARGET),
    ]
    if not all(math.isclose(answer, _LOSS, rel_tol=1e-6) for answer in answers):
        raise SelfTestFailed(f"the worked example has the loss {_LOSS}, not {answers}")


def compile_common() -> None:
    """Compiles what common requests need, or loads it from the cache, and checks the results.

    Takes about a minute on two cores with an empty cache, and a second or two with a full one.
    Raises ``SelfTestFailed``.
    """
    start = time.monotonic()
    with one_at_a_time():
        for dtype in EAGER:
            _compile(dtype)
    _check()
    _log.info("kernels ready after %.1f s", time.monotonic() - start)
