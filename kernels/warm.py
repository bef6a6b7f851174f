"""Compilation of common kernels before the first request, once a machine, and their self-test.

Processes that share a cache take turns (a file lock), or each would compile all of it. The one
whose turn it is compiles in several processes at once, since Numba compiles on one core only.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import kernels
from kernels import dtypes, problem
from kernels.cache import folder
from kernels.compiled import one_process
from kernels.compiling import Job, Told, compile_all
from kernels.cpu.launch.loss import SERIAL, SHARED
from kernels.cpu.launch.planned import SHORT
from kernels.cpu.launch.summary import summary
from kernels.cpu.sums.rows import SEGMENT
from kernels.cpu.sums.short import LARGEST
from kernels.specialisations import (
    AnySpecialisation,
    DivergenceSpecialisation,
    Specialisation,
    SummarySpecialisation,
    mark_compiled,
)

_log = logging.getLogger(__name__)
# Child processes that compile at once: each takes some 400 MB, and containers are small.
CHILDREN = 2
# The worked example: PyTorch's loss of it is 1.5722.
_PRED = ((0, 0, 0, 0, 0), (0, 0, 1, 1, 0), (1, 3, 2, 3, 0), (0, 0, 0, 0, 0))
_TARGET = (1, 4, 3, 2)
_LOSS = 1.5721803
# Shapes that compile all kernels: one thread, a plan of more than a short loss, many threads, few
# long rows on many threads.
_SHAPES = ((1, 64), (2, SHORT), (max(SERIAL // 64, SHARED) + 64, 64), (1, SEGMENT + 1))
# Classes of rows that have a summary.
_LONG = LARGEST + 1


class SelfTestFailed(RuntimeError):
    """Wrong loss of the worked example."""


def compile_specialisation(
    normalised: bool,
    logits: str,
    soft: str,
    capped: bool,
    likeliest: bool = False,
    binary: bool = False,
) -> None:
    """Run every kernel of a ``Specialisation`` once."""
    options: dict[str, Any] = {"softcap": 1.0 if capped else None}
    if likeliest:
        options["outputs"] = ("max_logit",)
    for rows, classes in _SHAPES:
        array = np.zeros((rows, classes), dtypes.BY_NAME[logits].numpy)
        labels = np.zeros(rows, np.int64)
        if normalised:
            kernels.nll_loss(array, labels)
        elif binary:
            kernels.binary_cross_entropy(array, np.zeros(array.shape, dtypes.BY_NAME[soft].numpy))
        elif soft != logits:
            kernels.cross_entropy(
                array,
                np.zeros((rows, classes), dtypes.BY_NAME[soft].numpy),
                check_probabilities=False,
                **options,
            )
        else:
            for _ in range(2):  # the second time by a plan
                kernels.cross_entropy(array, labels, **options)
    if soft == logits and not (normalised or binary):
        _sum_sequences(dtypes.BY_NAME[logits], options)
    mark_compiled(Specialisation(normalised, logits, soft, capped, likeliest, binary))


def _sum_sequences(dtype: dtypes.DType, options: Mapping[str, Any]) -> None:
    """Compile what moves labels and adds up by sequence."""
    array, labels = np.zeros((1, 2, 64), dtype.numpy), np.zeros((1, 2), np.int64)
    more = (*options.get("outputs", ()), "sequence_loss", "sequence_count")
    for _ in range(2):
        kernels.cross_entropy(array, labels, class_axis=-1, **{**options, "outputs": more})


def compile_divergence(logits: str, targets: str, reverse: bool, sparse: bool) -> None:
    """Run the kernel of a ``DivergenceSpecialisation`` on one thread, and on many."""
    for rows in (1, SERIAL // 64 + 64):
        array = np.zeros((rows, 64), dtypes.BY_NAME[logits].numpy)
        teacher: dict[str, Any] = {
            "target_logits": np.zeros((rows, 64), dtypes.BY_NAME[targets].numpy)
        }
        if sparse:
            top = np.zeros((rows, 1), np.int64)
            teacher = {"target_classes": top, "target_top_log_probs": top.astype(np.float32)}
        kernels.kl_div(array, direction="reverse" if reverse else "forward", **teacher)
    mark_compiled(DivergenceSpecialisation(logits, targets, reverse, sparse))


def compile_summary(logits: str) -> None:
    """Run the kernel of a ``SummarySpecialisation`` on one thread, and on many."""
    for rows in (1, SERIAL // _LONG + 1):
        array = np.zeros((rows, _LONG), dtypes.BY_NAME[logits].numpy)
        labels = np.zeros(rows, np.int64)
        summary(problem.check(array, labels), labels)
    mark_compiled(SummarySpecialisation(logits))


_COMPILE = {
    Specialisation: compile_specialisation,
    DivergenceSpecialisation: compile_divergence,
    SummarySpecialisation: compile_summary,
}


def job(wanted: AnySpecialisation) -> Job:
    """Job that compiles ``wanted``."""
    return Job(str(wanted), __name__, _COMPILE[type(wanted)].__name__, tuple(wanted))


def common(offered: Sequence[dtypes.DType] = dtypes.FLOATS) -> list[Job]:
    """Jobs for common requests with logits of the dtypes ``offered``."""
    # Softcap, and probabilities of another dtype than the logits, are compiled on first use. The
    # longest first, float64's last: no process is done long before the other.
    losses = [
        Specialisation(False, dtype.name, dtype.name, False)
        for dtype in sorted(offered, key=lambda dtype: dtype is dtypes.FLOAT64)
    ]
    # Log-probabilities have the dtypes of results.
    results = dict.fromkeys(dtype.result.name for dtype in offered)
    return [
        *(job(wanted) for wanted in losses),
        *(job(Specialisation(True, name, name, False)) for name in results),
    ]


def check(device: str = "cpu", dtype: dtypes.DType = dtypes.FLOAT32) -> None:
    """Compare the worked example, contiguous and strided, with its known loss.

    Raises ``SelfTestFailed``.
    """
    pred = np.array(_PRED, dtype.result)
    if dtype is dtypes.BFLOAT16:  # all of it is exact
        pred = (pred.view(np.uint32) >> 16).astype(np.uint16).view(dtype.numpy)
    elif dtype.size < pred.itemsize:
        pred = pred.astype(dtype.numpy)
    answers: list[Any] = [
        kernels.cross_entropy(pred, _TARGET, device=device),
        kernels.cross_entropy(np.asfortranarray(pred), _TARGET, device=device),
        kernels.nll_loss(kernels.log_softmax(pred, device=device), _TARGET, device=device),
    ]
    if not all(math.isclose(answer, _LOSS, rel_tol=1e-6) for answer in answers):
        raise SelfTestFailed(f"the worked example has the loss {_LOSS}, not {answers}")


def compile_common(
    offered: Sequence[dtypes.DType] = dtypes.FLOATS,
    more: Sequence[Job] = (),
    told: Told | None = None,
) -> list[str]:
    """Compile the ``common`` jobs and ``more``, or load them from the cache; then ``check``.

    Returns the names of the jobs that were in no cache. ``told`` is called with the progress of
    compiling. Raises ``SelfTestFailed``.
    """
    start = time.monotonic()
    jobs = common(offered)
    with one_process(folder(), "lock"):
        missing = [each for each in (*jobs, *more) if not each.load()]
        compile_all(missing, min(CHILDREN, os.cpu_count() or 1), told)
    check(dtype=dtypes.BY_NAME[jobs[0].arguments[1]])
    _log.info("kernels ready after %.1f s", time.monotonic() - start)
    return [each.name for each in missing]
