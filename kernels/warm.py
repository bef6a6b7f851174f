"""Compiling before the first request: what is common, once a machine, then checked.

Processes that share a cache take turns (a file lock), or each would compile all of it. The one
whose turn it is has a second one compile a part, since Numba compiles on one core only.
"""

from __future__ import annotations

import contextlib
import logging
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numba import config

import kernels
from kernels import dtypes
from kernels.compiled import STAMP, one_process
from kernels.cpu.launch import SERIAL

_log = logging.getLogger(__name__)
# float64 and mixed types of logits and probabilities are compiled when first asked for.
EAGER = (dtypes.FLOAT32, dtypes.FLOAT16, dtypes.BFLOAT16)
# That of the eager types which the second process compiles.
_ELSEWHERE = dtypes.BFLOAT16
# The worked example: PyTorch's loss of it is 1.5722.
_PRED = ((0, 0, 0, 0, 0), (0, 0, 1, 1, 0), (1, 3, 2, 3, 0), (0, 0, 0, 0, 0))
_TARGET = (1, 4, 3, 2)
_LOSS = 1.5721803


class SelfTestFailed(RuntimeError):
    """The kernels give another loss for the worked example than they must."""


def _cache() -> Path:
    return Path(config.CACHE_DIR or Path(__file__).parent / "__pycache__")


def one_at_a_time() -> contextlib.AbstractContextManager[None]:
    """Holds the cache's lock, which does not nest; without one where the cache is read-only."""
    return one_process(_cache(), "lock")


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


def check(device: str = "cpu") -> None:
    """Compares the worked example, contiguous and strided, with its known loss.

    Raises ``SelfTestFailed``.
    """
    pred = np.array(_PRED, dtypes.FLOAT32.numpy)
    answers: list[Any] = [
        kernels.cross_entropy(pred, _TARGET, device=device),
        kernels.cross_entropy(np.asfortranarray(pred), _TARGET, device=device),
        kernels.nll_loss(kernels.log_softmax(pred, device=device), _TARGET, device=device),
    ]
    if not all(math.isclose(answer, _LOSS, rel_tol=1e-6) for answer in answers):
        raise SelfTestFailed(f"the worked example has the loss {_LOSS}, not {answers}")


def _filled() -> Path:
    """The file that says, by holding ``STAMP``, that the cache has all that is common."""
    return _cache() / "lossd.filled"


def _is_filled() -> bool:
    with contextlib.suppress(OSError):
        return _filled().read_bytes() == STAMP
    return False


def compile_common() -> None:
    """Compiles what common requests need, or loads it from the cache, and checks the results.

    Takes half a minute on two cores with an empty cache, and a second or two with a full one.
    Raises ``SelfTestFailed``.
    """
    start = time.monotonic()
    with one_at_a_time():
        known = _is_filled()
        command = [sys.executable, "-P", "-m", "kernels.warm", _ELSEWHERE.name]
        helper = None if known else subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for dtype in EAGER:
            if dtype is _ELSEWHERE and helper is not None:
                helper.wait()  # if it failed, what it did not do is done here
            _compile(dtype)
        if not known:
            with contextlib.suppress(OSError):
                _filled().write_bytes(STAMP)
    check()
    _log.info("kernels ready after %.1f s", time.monotonic() - start)


if __name__ == "__main__":
    _compile(dtypes.BY_NAME[sys.argv[1]])
