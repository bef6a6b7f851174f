"""Arrays of the caller's that outputs are written to: ``out`` of the public functions.

A new array costs as much as the loss: the kernel of the operating system zeroes its pages as they
are first written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np

from kernels.cpu.launch.views import classes_last
from kernels.cpu.launch.views import fits as lies_right
from kernels.devices import target
from kernels.divergence import Divergence
from kernels.errors import InvalidInput
from kernels.plan import PER_CLASS
from kernels.problem import Array, Problem

Checked = TypeVar("Checked", Problem, Divergence)


def with_out(
    problem: Checked, outputs: Sequence[str], out: Any, inputs: Mapping[str, Any]
) -> Checked:
    """``problem`` whose ``outputs`` are written to the arrays of ``out``, by name.

    ``inputs`` are the tensors that the problem is made of, as they were given: they must not share
    memory with those. Raises ``InvalidInput``.
    """
    if out is None:
        return problem
    if not isinstance(out, Mapping):
        kind = type(out).__name__
        raise _wrong(f'out is a {kind}; it maps outputs to arrays, as {{"gradient": array}}')
    for name in out:
        if name not in PER_CLASS:
            names = " and ".join(PER_CLASS)
            raise _wrong(f"out has {name!r:.50}; only {names} are written to given arrays")
        if name not in outputs:
            raise _wrong(f"out has {name!r}, which outputs does not list")
    return _written_to(problem, out, {name: f"out[{name!r}]" for name in out}, inputs)


def with_array(problem: Problem, name: str, array: Any, inputs: Mapping[str, Any]) -> Problem:
    """``with_out`` for the one output of a function whose ``out`` is an array."""
    return _written_to(problem, {name: array}, {name: "out"}, inputs)


def refuse_gpu(on_gpu: bool) -> None:
    """Raise ``InvalidInput`` for arrays that a GPU's kernels would have to write to."""
    if on_gpu:
        raise _wrong('out is written on the CPU alone: pass device="cpu", or no out')


def _written_to(
    problem: Checked, out: Mapping[str, Any], labels: Mapping[str, str], inputs: Mapping[str, Any]
) -> Checked:
    refuse_gpu(target(problem.device) != "cpu")
    arrays = {name: _checked(problem, labels[name], array) for name, array in out.items()}
    _check_apart({labels[name]: array for name, array in arrays.items()}, inputs)
    return replace(problem, out=arrays)


def _wrong(message: str) -> InvalidInput:
    return InvalidInput(message, field="out")


def _checked(problem: Problem | Divergence, label: str, array: Any) -> Array:
    """``array`` in the shape of the problem's logits, if kernels can write the output to it."""
    binary = isinstance(problem, Problem) and problem.binary
    shape = problem.logits.shape[:-1] if binary else problem.logits.shape
    dtype = problem.dtype.result
    if not isinstance(array, np.ndarray):
        raise _wrong(f"{label} is a {type(array).__name__}; it must be a NumPy array")
    if array.shape != shape:
        raise _wrong(f"{label} has shape {array.shape}; it must have that of the logits, {shape}")
    if array.dtype != dtype:
        kind = problem.dtype.name
        raise _wrong(f"{label} holds {array.dtype}; of {kind} logits it must be {dtype.name}")
    if not array.flags.writeable:
        raise _wrong(f"{label} is read-only; it must be writeable")
    plain = np.asarray(array)  # of no subclass
    if binary and plain.flags.c_contiguous:
        plain = plain.reshape(problem.logits.shape)
    if plain.size and not (plain.shape == problem.logits.shape and lies_right(problem, plain)):
        raise _wrong(f"{label} does not lie in memory as it must: as {_right(problem, shape)} does")
    return plain


def _right(problem: Problem | Divergence, shape: tuple[int, ...]) -> str:
    """Expression of an array of ``shape`` that lies in memory as the problem's kernels write."""
    kind = f"np.{problem.dtype.result.name}"
    if not classes_last(problem):
        return f"np.empty_like(logits, dtype={kind})"
    axis, last = problem.axis, len(problem.logits.shape) - 1
    if axis == last:
        return f"np.empty({shape}, {kind})"
    return f"np.moveaxis(np.empty({(*problem.shape, problem.classes)}, {kind}), -1, {axis})"


def _check_apart(arrays: Mapping[str, Array], inputs: Mapping[str, Any]) -> None:
    """Raise ``InvalidInput`` where one of ``arrays`` meets another or an input, by their bounds."""
    given = {name: np.asarray(value) for name, value in inputs.items() if value is not None}
    pairs = [(one, other) for one in arrays.items() for other in given.items()]
    for (label, array), (name, other) in (*pairs, *combinations(arrays.items(), 2)):
        if np.may_share_memory(array, other):
            raise _wrong(f"{label} shares memory with {name}; it must be an array of its own")
