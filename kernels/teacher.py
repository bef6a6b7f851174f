"""Teachers of a divergence: checks of dense and sparse targets, and their errors.

Dense ones are logits or log-probabilities of all classes; a sparse one is the log-probabilities of
some classes of each position, padded by class -1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kernels import dtypes, mismatch
from kernels.dtypes import DType
from kernels.errors import InvalidInput
from kernels.problem import Array, floats
from kernels.tensors import widened

TAILS = ("bucket", "ignore", "renormalize")
DENSE = ("target_logits", "target_log_probs")
SPARSE = ("target_classes", "target_top_log_probs")
TARGETS = (*DENSE, *SPARSE)
PADDING = -1
_LARGEST = 2**63 - 1


_AS_THEY_ARE = "check_probabilities=false takes them as they are"


def fields_of(
    given: Mapping[str, Any], shape: tuple[int, ...], axis: int, dtype: DType, bits: str | None
) -> dict[str, Array]:
    """Fields of ``Divergence`` made of the targets ``given``.

    The logits are of ``shape`` and ``dtype``, and ``bits`` is ``logits_dtype``. Raises
    ``InvalidInput``.
    """
    choice = (
        "kl_div takes one teacher: target_logits, target_log_probs, or target_classes with "
        "target_top_log_probs"
    )
    if len(given) == 1 and next(iter(given)) in DENSE:
        ((name, value),) = given.items()
        return {"targets": _dense(name, value, shape, dtype, bits)}
    if given.keys() == set(SPARSE):
        classes, log_probs = (np.asarray(given[name]) for name in SPARSE)
        return _sparse(classes, log_probs, shape, axis)
    if not given:
        raise InvalidInput(f"there are no targets: {choice}", field=DENSE[0])
    if len(given) == 1:
        (other,) = set(SPARSE) - given.keys()
        raise InvalidInput(f"{other} is missing: {choice}", field=other)
    listed = " and ".join(name for name in TARGETS if name in given)
    raise InvalidInput(
        f"there are {listed}: {choice}", field=next(name for name in TARGETS if name in given)
    )


@np.errstate(invalid="ignore")  # a signalling NaN is a NaN like any other
def _dense(name: str, value: Any, shape: tuple[int, ...], logits: DType, bits: str | None) -> Array:
    """View of dense targets for kernels; converted only if one dtype alone is float64."""
    given = np.asarray(value)
    array, dtype = floats(name, given, bits if given.dtype == "<u2" else None)
    if array.shape != shape:
        raise InvalidInput(
            f"{name} have shape {array.shape}; they must have that of the logits, {shape}"
            + (": pass target_classes and target_top_log_probs for some of the classes alone")
            * (array.ndim == len(shape) and array.size < math.prod(shape)),
            field=name,
        )
    if dtype.result == logits.result:
        return array
    return widened(array.view(dtype.numpy)).astype(logits.result)


def _sparse(
    classes: Array, log_probs: Array, shape: tuple[int, ...], axis: int
) -> dict[str, Array]:
    name, other = SPARSE
    if dtypes.of(classes) not in dtypes.INTEGERS:
        raise InvalidInput(f"{name} must be integers, not {classes.dtype}", field=name)
    if dtypes.of(log_probs) not in dtypes.FLOATS:
        raise InvalidInput(f"{other} must be floating-point, not {log_probs.dtype}", field=other)
    positions = mismatch.without(shape, axis)
    if classes.shape[:-1] != positions or classes.ndim != len(positions) + 1:
        raise InvalidInput(
            f"{name} have shape {classes.shape}; for logits of shape {shape}, whose classes are on "
            f"axis {axis}, they must be of shape {(*positions, 'K')}, K classes of each position",
            field=name,
        )
    if log_probs.shape != classes.shape:
        raise InvalidInput(
            f"{other} have shape {log_probs.shape}; they must have that of {name}, {classes.shape}",
            field=other,
        )
    rows, top = math.prod(positions), classes.shape[-1]
    if classes.dtype == np.uint64:  # as int64 the largest would be padding
        classes = np.minimum(classes, np.uint64(_LARGEST))
    return {
        "top_classes": np.ascontiguousarray(classes, np.int64).reshape(rows, top),
        "top_log_probs": np.ascontiguousarray(widened(log_probs), np.float64).reshape(rows, top),
    }


def check_tail(tail: str, temperature: float) -> None:
    """Refuse a temperature of a sparse teacher whose rest is not known."""
    if tail != "renormalize" and temperature != 1.0:
        raise InvalidInput(
            f"target_temperature is {temperature:g} and tail {tail}: what a sparse teacher gives "
            "to other classes at another temperature cannot be told from its log-probabilities. "
            "target_temperature=1 takes them as they are, made at the student's temperature; "
            "tail=renormalize needs no other classes",
            field="target_temperature",
        )


def no_distribution(
    row: Array, index: tuple[int, ...], axis: int, tolerance: float
) -> InvalidInput:
    """Error of the target log-probabilities ``row`` at ``index``, classes on ``axis``."""
    stored = next(entry for entry in dtypes.FLOATS if entry.load == row.dtype)
    with np.errstate(all="ignore"):
        total = float(np.exp(widened(row.view(stored.numpy)).astype(np.float64)).sum())
    where = mismatch.element(DENSE[1], (*index[:axis], ":", *index[axis:]))
    return InvalidInput(
        f"{where} are log-probabilities whose probabilities sum to {total:.6g}; they must sum to "
        f"1, within {tolerance:.2g}: logits are target_logits, and {_AS_THEY_ARE}",
        field=DENSE[1],
        position=index,
    )


def no_teacher(
    row: Array, log_probs: Array, index: tuple[int, ...], classes: int, tolerance: float
) -> InvalidInput:
    """Error of a sparse teacher at ``index``: its top classes ``row``, and their ``log_probs``."""
    wrong = np.flatnonzero((row < PADDING) | (row >= classes))
    if wrong.size:
        at = (*index, int(wrong[0]))
        return InvalidInput(
            f"{mismatch.element(SPARSE[0], at)} is {row[wrong[0]]}; with {classes} classes it must "
            f"be from 0 to {classes - 1}, or {PADDING} for padding",
            field=SPARSE[0],
            position=at,
        )
    _, places, which = np.unique(row, return_index=True, return_inverse=True)
    earlier = places[which]
    repeated = np.flatnonzero((row != PADDING) & (earlier < np.arange(row.size)))
    if repeated.size:
        at, first = ((*index, int(k)) for k in (repeated[0], earlier[repeated[0]]))
        return InvalidInput(
            f"{mismatch.element(SPARSE[0], at)} is {row[repeated[0]]}, as is "
            f"{mismatch.element(SPARSE[0], first)}; each class of a position may be there once",
            field=SPARSE[0],
            position=at,
        )
    with np.errstate(all="ignore"):
        total = float(np.exp(log_probs[row != PADDING]).sum())
    return InvalidInput(
        f"{mismatch.element(SPARSE[1], (*index, ':'))} are log-probabilities whose probabilities "
        f"sum to {total:.6g}; they must sum to at most 1, within {tolerance:.2g}: {_AS_THEY_ARE}",
        field=SPARSE[1],
        position=index,
    )
