"""Specialisations of CPU kernels: those of a problem, and those compiled in this process."""

from __future__ import annotations

from typing import NamedTuple

from kernels.dtypes import FLOATS
from kernels.problem import Problem

_BY_LOAD = {dtype.load: dtype.name for dtype in FLOATS}


class Specialisation(NamedTuple):
    """Dtypes and options that decide the types of a kernel's arguments.

    ``normalised``: the logits are log-probabilities; ``logits`` and ``soft`` are dtypes' names
    (class indices count as probabilities of the logits' type); ``capped``: there is a softcap.
    """

    normalised: bool
    logits: str
    soft: str
    capped: bool

    def __str__(self) -> str:
        name = "nll_loss" if self.normalised else "cross_entropy"
        soft = "" if self.soft == self.logits else f" with {self.soft} probabilities"
        return f"{name} of {self.logits}{soft}{' with softcap' if self.capped else ''}"


_COMPILED: set[Specialisation] = set()


def mark_compiled(specialisation: Specialisation) -> None:
    """Note that all kernels of ``specialisation`` are compiled and loaded in this process."""
    _COMPILED.add(specialisation)


def of(problem: Problem) -> Specialisation:
    """Specialisation that computes ``problem``."""
    soft = problem.dtype.name if problem.soft is None else _BY_LOAD[problem.soft.dtype]
    capped = problem.softcap is not None and not problem.normalised
    return Specialisation(problem.normalised, problem.dtype.name, soft, capped)


def not_compiled(*needed: Specialisation) -> tuple[Specialisation, ...]:
    """Filter ``needed``: those that are not compiled and loaded in this process yet."""
    return tuple([each for each in needed if each not in _COMPILED])


def uncompiled(problem: Problem) -> tuple[Specialisation, ...]:
    """Specialisations to compile or load before ``problem`` is computed."""
    return not_compiled(of(problem))
