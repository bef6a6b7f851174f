"""The true divergences: plain NumPy in extended precision, to be read next to the formulas.

It imports nothing of the kernels and shares no trick with them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracle import Array, class_dimension, log_softmax, widen


def kl(p: Array, q: Array) -> Array:
    """``sum(exp(p) * (p - q))`` of log-probabilities over the last axis, where 0 * log(0) is 0."""
    with np.errstate(all="ignore"):
        return np.asarray(np.where(np.exp(p) == 0, 0, np.exp(p) * (p - q)).sum(-1))


def of_logs(teacher: Array, student: Array, direction: str, beta: float = 0.5) -> Array:
    """Divergence of log-probabilities over the last axis, which need not be whole distributions."""
    if direction == "forward":
        return kl(teacher, student)
    if direction == "reverse":
        return kl(student, teacher)
    b = np.longdouble(beta)
    with np.errstate(all="ignore"):
        mixture = np.logaddexp(np.log(b) + teacher, np.log(1 - b) + student)
    return np.asarray(b * kl(teacher, mixture) + (1 - b) * kl(student, mixture))


def _log_sum(values: Array, axis: int = -1) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(np.logaddexp.reduce(values, axis, keepdims=True))


def coarse(
    student: Array, classes: Array, log_probs: Array, tail: str, temperature: float = 1.0
) -> tuple[Array, Array]:
    """One position's ``(teacher, student)`` over its listed classes, and their rest as ``tail``
    says; ``student`` has the log-probabilities of all classes.
    """
    listed = classes[classes != -1].astype(np.int64)
    t = widen(log_probs[classes != -1])
    s = student[listed]
    if tail == "renormalize":
        t = t / np.longdouble(temperature)
        return t - _log_sum(t), s - _log_sum(s)
    if tail == "ignore":
        return t, s
    others = np.delete(student, listed)
    mass = np.exp(t).sum()
    if others.size == 0:
        return t - _log_sum(t), s
    rest = _log_sum(others)
    with np.errstate(all="ignore"):
        # Where float64 holds no rest of the student, one of the teacher below 2**-20 is rounding.
        if mass > 1 or (mass > 1 - 2.0**-20 and np.exp(np.float64(rest[0])) == 0):
            t, mass = t - np.log(mass), np.longdouble(1)
        left = np.log1p(-mass) if mass < 1 else np.longdouble(-np.inf)
        return np.append(t, left), np.append(s, rest)


def per_position(
    logits: Array,
    *,
    targets: Array | None = None,
    top: tuple[Array, Array] | None = None,
    direction: str = "forward",
    beta: float = 0.5,
    tail: str = "bucket",
    temperature: float = 1.0,
    target_temperature: float | None = None,
    class_axis: int | None = None,
) -> Array:
    """Divergence of each position; ``targets`` are logits or log-probabilities, ``top`` a sparse
    teacher's classes and log-probabilities.
    """
    axis = class_dimension(logits.ndim, class_axis)
    own = temperature if target_temperature is None else target_temperature
    student = np.moveaxis(log_softmax(logits, axis, temperature=temperature), axis, -1)
    if targets is not None:
        teacher = np.moveaxis(log_softmax(targets, axis, temperature=own), axis, -1)
        return of_logs(teacher, student, direction, beta)
    assert top is not None
    answer = np.empty(student.shape[:-1], np.longdouble)
    for at in np.ndindex(answer.shape):
        pair = coarse(student[at], top[0][at], top[1][at], tail, own)
        answer[at] = of_logs(*pair, direction, beta)
    return answer


def gradient(logits: Array, step: float = 1e-5, **options: Any) -> Array:
    """Derivative of each position's divergence by its own logits, by central differences."""
    x = widen(logits)
    axis = class_dimension(x.ndim, options.get("class_axis"))
    slopes = np.empty_like(x)
    for c in range(x.shape[axis]):
        at = (slice(None),) * axis + (c,)
        up, down = x.copy(), x.copy()
        up[at] += step
        down[at] -= step
        difference = per_position(up, **options) - per_position(down, **options)
        slopes[at] = difference / (2 * np.longdouble(step))
    return slopes
