"""Specialisations of kernels by name: those of a problem, and those compiled in this process."""

from __future__ import annotations

from typing import NamedTuple

from kernels.dtypes import FLOATS
from kernels.problem import Problem

_BY_LOAD = {dtype.load: dtype.name for dtype in FLOATS}


class Specialisation(NamedTuple):
    """What the types of a kernel's arguments follow from: dtypes, and whether logits are capped.

    Class indices count as probabilities of the logits' type. ``normalised``: the logits are
    log-probabilities.
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
    """What ``problem`` is computed by."""
    soft = problem.dtype.name if problem.soft is None else _BY_LOAD[problem.soft.dtype]
    capped = problem.softcap is not None and not problem.normalised
    return Specialisation(problem.normalised, problem.dtype.name, soft, capped)


def not_compiled(*needed: Specialisation) -> tuple[Specialisation, ...]:
    """Those of ``needed`` that are not compiled and loaded in this process yet."""
    return tuple([each for each in needed if each not in _COMPILED])


def uncompiled(problem: Problem) -> tuple[Specialisation, ...]:
    """What has to be compiled or loaded before ``problem`` is computed."""
    return not_compiled(of(problem))
