"""Terms of a shard: the options that it is scored with, and whether it is like the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kernels import InvalidInput, dtypes
from kernels.problem import Problem, check, class_axis_of
from kernels.report import begin
from service.bulk.shard import TensorSpec
from service.errors import DecodeError, InvalidOption
from service.options import CrossEntropyOptions, ReportOptions
from service.request.given import combine

# Options that count for a score.
OPTIONS = (
    "class_axis",
    "ignore_index",
    "label_smoothing",
    "temperature",
    "softcap",
    "z_loss",
    "check_probabilities",
    "shift",
    "bytes",
)


class Terms(NamedTuple):
    """Terms that all shards of a corpus have in common, and the size of this one's rows.

    ``options`` are arguments of ``kernels.problem.check``, or of ``kernels.report.begin``. ``span``
    is the positions of a row, ``row_bytes`` the bytes of its logits. ``whole``: the shard's rows
    are one sequence, which is not cut. ``tensors`` are the names of those that it has.
    """

    location: str
    options: Mapping[str, Any]
    tensors: frozenset[str]
    classes: int
    soft: bool
    rank: int
    tail: tuple[int, ...]
    dtype: str
    span: int
    row_bytes: int
    whole: bool
    bytes: int | None


# What is alike in all shards, with its words; and what is for reports as well: these have one form.
_ALIKE = {
    "options": "options",
    "tensors": "tensors",
    "classes": "number of classes",
    "soft": "kind of labels (class indices or probabilities)",
    "rank": "number of axes",
}
_ALIKE_IN_REPORTS = {
    **_ALIKE,
    "tail": "shape of the labels behind the first axis",
    "dtype": "dtype of the logits",
}


def failure_of(error: Exception, location: str) -> str:
    """Reason of ``error``, as one line that does not name ``location`` twice."""
    if isinstance(error, MemoryError):
        text = "does not fit the memory"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = getattr(error, "message", None) or str(error) or type(error).__name__
    return " ".join(text.removeprefix(f"{location}: ").split())


def model_of(report: bool) -> type[CrossEntropyOptions] | type[ReportOptions]:
    return ReportOptions if report else CrossEntropyOptions


def terms_of(
    location: str, look: Any, query: Mapping[str, str], report: bool, first: Terms | None
) -> Terms | str:
    """Terms of a shard that was looked at, or the reason why it cannot be scored with the others.

    ``look`` has its ``rows``, ``tensors`` and ``options``.
    """
    try:
        found = _terms(location, look, query, report)
    except (InvalidInput, InvalidOption, DecodeError) as error:
        return failure_of(error, location)
    if first is None:
        return found
    for name, words in (_ALIKE_IN_REPORTS if report else _ALIKE).items():
        mine, theirs = getattr(found, name), getattr(first, name)
        if mine != theirs:
            return (
                f"differs from {first.location} in its {words}: {_shown(mine, theirs)}, not"
                f" {_shown(theirs, mine)}"
            )
    return found


def _shown(value: Any, other: Any) -> str:
    if isinstance(value, frozenset):
        return ", ".join(sorted(value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={value[name]}" for name in value if value[name] != other[name])
    if isinstance(value, bool):
        return "probabilities" if value else "class indices"
    return str(value)


def _terms(location: str, look: Any, query: Mapping[str, str], report: bool) -> Terms:
    chosen = combine(model_of(report), query, look.options, typed=False)
    tensors: Mapping[str, TensorSpec] = look.tensors
    logits, labels = tensors["logits"], tensors["labels"]
    rank = len(logits.shape)
    for name, spec in tensors.items():
        if name != "weight" and spec.shape[:1] != logits.shape[:1]:
            raise InvalidInput(
                f"{name} has {spec.shape[0] if spec.shape else 'no'} rows, and logits have"
                f" {logits.shape[0] if rank else 'none'}: of shapes {spec.shape} and"
                f" {logits.shape}",
                field=name,
            )
    if report:
        options = {name: value for name, value in chosen if name != "device"}
    else:
        options = {name: getattr(chosen, name) for name in OPTIONS if name != "bytes"}
    if class_axis_of(logits.shape, options["class_axis"], "logits") == 0:
        raise InvalidInput(
            f"the class axis of logits of shape {logits.shape} is the first one, along which shards"
            " are cut into rows: store them with the classes on another axis",
            field="class_axis",
        )
    problem = checked(tensors, options, report)
    return Terms(
        location=location,
        options=options,
        tensors=frozenset(tensors),
        classes=problem.classes,
        soft=problem.soft is not None,
        rank=rank,
        tail=problem.shape[1:],
        dtype=problem.dtype.name,
        span=math.prod(problem.shape[1:]),
        row_bytes=math.prod(logits.shape[1:]) * problem.dtype.size,
        whole="segments" in tensors and len(labels.shape) == 1,
        bytes=None if report else getattr(chosen, "bytes", None),
    )


def checked(tensors: Mapping[str, TensorSpec], options: Mapping[str, Any], report: bool) -> Problem:
    """Check one row of zeros in place of the tensors: shapes, dtypes and options together."""
    one: dict[str, Any] = {
        name: _zeros(spec, spec.shape if name == "weight" else (1, *spec.shape[1:]))
        for name, spec in tensors.items()
    }
    if report:
        return begin(**one, **options)[0]
    return check(**one, **options)


def _zeros(spec: TensorSpec, shape: tuple[int, ...]) -> Any:
    dtype = dtypes.BY_NAME.get(spec.dtype)
    return np.zeros(shape, np.uint8 if dtype is None else dtype.numpy)
