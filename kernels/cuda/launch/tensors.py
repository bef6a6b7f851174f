"""Tensors of a piece on the device, and the operands made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from kernels.cuda.arguments import Labels, Likeliest, Options, Reals, Results
from kernels.cuda.device.memory import rounded
from kernels.cuda.kinds import Kind, segments_of
from kernels.cuda.launch.queue import Operands
from kernels.cuda.loss.position import STATES
from kernels.cuda.sums.thread import Sums
from kernels.options import options_of
from kernels.plan import LIKELIEST, PER_CLASS, PER_POSITION, TOP, View
from kernels.problem import Problem

# Fields of ``Sums`` that are whole numbers; the others are real.
_WHOLES = 2
_REALS = len(Sums._fields) - _WHOLES
# Fixed sizes, in elements: see ``Results.status``.
STATUS = 2
NOWHERE = 2**62  # a position that no piece has: the first value of ``Results.status``
RESIDENT = ("losses", "weights")


class Tensor(NamedTuple):
    """Dtype of a tensor, and its number of elements a position."""

    dtype: Any
    each: int = 1

    def bytes(self, positions: int) -> int:
        return rounded(np.dtype(self.dtype).itemsize * self.each * positions)


class Wanted(NamedTuple):
    """Kind of kernels, wanted outputs, and all tensors of a piece, for one problem."""

    kind: Kind
    outputs: tuple[str, ...]
    tensors: dict[str, Tensor]
    segments: int

    def bytes(self, positions: int) -> int:
        """Bytes of a piece of ``positions``."""
        pieces = sum(tensor.bytes(positions) for tensor in self.tensors.values())
        return pieces + rounded(8 * STATUS)


def wanted_of(problem: Problem, names: tuple[str, ...], rows: bool) -> Wanted:
    """Tensors for ``problem`` and the outputs ``names``."""
    smooth = problem.soft is not None or problem.label_smoothing > 0.0
    more = bool({"entropy", "rank", "prediction"} & set(names))
    capped, softly = problem.softcap is not None, problem.soft is not None
    smooth, focal = smooth and not problem.normalised, problem.focal > 0.0
    kind = Kind(problem.dtype, capped, smooth, softly, more, focal)
    segments = segments_of(problem.classes, rows)
    real = problem.dtype.result
    tensors = {"logits": Tensor(problem.dtype.load, problem.classes)}
    if problem.soft is not None:
        tensors["soft"] = Tensor(problem.soft.dtype, problem.classes)
    if problem.labels is not None:
        tensors["labels"] = Tensor(np.int64)
    if problem.sample_weight is not None:
        tensors["sample_weight"] = Tensor(np.float64)
    for name in PER_CLASS:
        if name in names:
            tensors[name] = Tensor(real, problem.classes)
    if {*PER_CLASS, *LIKELIEST} & set(names):
        tensors["state"] = Tensor(np.float64, STATES)
    for name, dtype in PER_POSITION.items():
        if name in names and name not in RESIDENT:
            tensors[name] = Tensor(dtype or real)
    for name, dtype in LIKELIEST.items():
        if name in names:
            tensors[name] = Tensor(dtype or real, problem.values_each(name))
    for name, values in more_inputs(problem, 0, 1).items():
        tensors[name] = Tensor(values.dtype, values.size)
    tensors["odd"] = Tensor(np.int64)
    if segments > 1:
        tensors["parts"] = Tensor(real, _REALS * segments)
        tensors["places"] = Tensor(np.int64, _WHOLES * segments)
    outputs = tuple(name for name in (*PER_POSITION, *LIKELIEST, *PER_CLASS) if name in tensors)
    return Wanted(kind, outputs, tensors, segments)


def device_options(problem: Problem, names: tuple[str, ...], upstream: float, send: Any) -> Options:
    """``options_of`` a problem, with its arrays on the device: ``send`` copies them there."""
    given = options_of(problem, names, upstream)._asdict()
    given["cap"] = problem.softcap or 1.0
    for name in ("weight", "lane_weight"):
        given[name] = send(given[name])
    real = problem.dtype.result.type
    return Options(
        reals=Reals(*(real(given[name]) for name in Reals._fields)),
        per_class=bool({*PER_CLASS, *LIKELIEST} & set(names)) and not problem.binary,
        **{name: given[name] for name in Options._fields if name in given},
    )


def more_inputs(problem: Problem, first: int = 0, stop: int | None = None) -> dict[str, Any]:
    """Weights of a binary cross-entropy, and chosen classes, of positions ``first`` to ``stop``."""
    inputs: dict[str, Any] = {}
    at = np.arange(first, problem.positions if stop is None else stop)
    if problem.binary and problem.weight is not None:
        inputs["positive"] = problem.weight[at // problem.weight_run % problem.weight.size]
    if problem.binary and problem.factor is not None:
        inputs["factor"] = problem.factor[at // problem.factor_run % problem.factor.size]
    if problem.chosen is not None:
        rows = np.minimum(at, len(problem.chosen) - 1)  # one row is for all positions
        inputs["chosen"] = problem.chosen[rows].reshape(-1)
    return inputs


def labels_of(problem: Problem, classes: Any, samples: Any, positive: Any, factor: Any) -> Labels:
    """Labels for kernels; an unsigned label is never a negative ignore index."""
    if problem.labels is None:
        return Labels(classes, False, problem.ignore_index, samples, positive, factor)
    limits = np.iinfo(problem.labels.dtype)
    ignores = limits.min <= problem.ignore_index <= limits.max
    return Labels(classes, bool(ignores), problem.ignore_index, samples, positive, factor)


def _likeliest_of(problem: Problem, own: Mapping[str, Any], nothing: Nothing) -> Likeliest | None:
    """Arguments of ``likeliest_kernel``, or None where none of its outputs is wanted."""
    if not LIKELIEST.keys() & own.keys():
        return None
    return Likeliest(
        top_k=(problem.top_k or 0) if {*TOP} & own.keys() else 0,
        chosen_each=problem.values_each("chosen_log_probs"),
        chosen=own.get("chosen", nothing(np.int64)),
        **{
            name: own.get(name, nothing(dtype or problem.dtype.result))
            for name, dtype in LIKELIEST.items()
        },
    )


class Nothing:
    """Placeholders of unwanted arrays: no elements, or ``rows`` of one; kept by dtype."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}

    def __call__(self, dtype: Any, rows: int = 0) -> Any:
        key = np.dtype(dtype), rows
        if key not in self._made:
            self._made[key] = cuda.device_array((rows, 1) if rows else 0, dtype)
        return self._made[key]


# Fields of ``Results``: the dtype, where it is not ``DType.result``, and the rows of those with two
# axes.
_RESULTS: dict[str, tuple[Any, int]] = {
    "rank": (np.int64, 0),
    "prediction": (np.int64, 0),
    "state": (np.float64, STATES),
    "parts": (None, _REALS),
    "places": (np.int64, _WHOLES),
}


def operands_of(
    problem: Problem, options: Options, own: Mapping[str, Any], nothing: Nothing,
    view: Callable[[str, Any], View],
) -> Operands:  # fmt: skip
    """Operands made of the arrays in ``own``, which have the names in ``Wanted.tensors``.

    ``view(name, data)`` gives the view of an array with a value a class.
    """
    real, load = problem.dtype.result, problem.dtype.load

    def result(name: str) -> Any:
        dtype, rows = _RESULTS.get(name, (None, 0))
        if name not in own:
            return nothing(dtype or real, rows)
        return own[name].reshape(rows, own[name].size // rows) if rows else own[name]

    weights = ("sample_weight", "positive", "factor")
    labels = (
        own.get("labels", nothing(np.int64)),
        *(own.get(name, nothing(np.float64)) for name in weights),
    )
    return Operands(
        logits=view("logits", own["logits"]),
        soft=view("soft", own.get("soft", nothing(load))),
        labels=labels_of(problem, *labels),
        options=options,
        results=Results(*map(result, Results._fields)),
        log_probs=view("log_probs", own.get("log_probs", nothing(real))),
        gradient=view("gradient", own.get("gradient", nothing(real))),
        likeliest=_likeliest_of(problem, own, nothing),
    )
