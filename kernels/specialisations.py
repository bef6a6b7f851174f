"""Specialisations of CPU kernels: those of a problem, and those compiled in this process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from kernels.divergence import Divergence
from kernels.dtypes import FLOATS
from kernels.plan import LIKELIEST
from kernels.problem import Problem

_BY_LOAD = {dtype.load: dtype.name for dtype in FLOATS}


class Specialisation(NamedTuple):
    """Dtypes and options that decide the types of a kernel's arguments.

    ``normalised``: the logits are log-probabilities; ``logits`` and ``soft`` are dtypes' names
    (class indices count as probabilities of the logits' type); ``capped``: there is a softcap;
    ``likeliest``: outputs of ``plan.LIKELIEST`` are wanted; ``binary``: a binary cross-entropy.
    """

    normalised: bool
    logits: str
    soft: str
    capped: bool
    likeliest: bool = False
    binary: bool = False

    def __str__(self) -> str:
        name = "nll_loss" if self.normalised else "cross_entropy"
        name = "binary_cross_entropy" if self.binary else name
        soft = "" if self.soft == self.logits else f" with {self.soft} probabilities"
        capped = " with softcap" if self.capped else ""
        likeliest = " with the likeliest classes" if self.likeliest else ""
        return f"{name} of {self.logits}{soft}{capped}{likeliest}"


class DivergenceSpecialisation(NamedTuple):
    """Dtypes and options that decide the types of a divergence kernel's arguments.

    ``logits`` and ``targets`` are dtypes' names, the same for a ``sparse`` teacher; ``reverse``: of
    two dtypes, the targets' is the second.
    """

    logits: str
    targets: str
    reverse: bool
    sparse: bool

    def __str__(self) -> str:
        teacher = "a sparse teacher" if self.sparse else f"{self.targets} targets"
        direction = ", reverse" if self.reverse else ""
        return f"kl_div of {self.logits} and {teacher}{direction}"


class SummarySpecialisation(NamedTuple):
    """Dtype, by name, that decides the types of the arguments of ``cpu.loss.summary``'s kernel."""

    logits: str

    def __str__(self) -> str:
        return f"summary of {self.logits}, for reports"


AnySpecialisation: TypeAlias = Specialisation | DivergenceSpecialisation | SummarySpecialisation
_COMPILED: set[AnySpecialisation] = set()


def mark_compiled(specialisation: AnySpecialisation) -> None:
    """Note that all kernels of ``specialisation`` are compiled and loaded in this process."""
    _COMPILED.add(specialisation)


def of(problem: Problem, wanted: Iterable[str] = ()) -> Specialisation:
    """Specialisation that computes the outputs ``wanted`` of ``problem``."""
    soft = problem.dtype.name if problem.soft is None else _BY_LOAD[problem.soft.dtype]
    capped = problem.softcap is not None and not problem.normalised
    likeliest = not LIKELIEST.keys().isdisjoint(wanted)
    return Specialisation(
        problem.normalised, problem.dtype.name, soft, capped, likeliest, problem.binary
    )


def of_divergence(problem: Divergence) -> DivergenceSpecialisation:
    """Specialisation that computes ``problem``."""
    targets = problem.dtype.name if problem.targets is None else _BY_LOAD[problem.targets.dtype]
    reverse = problem.direction == "reverse" and targets != problem.dtype.name
    return DivergenceSpecialisation(
        problem.dtype.name, targets, reverse, problem.top_classes is not None
    )


def not_compiled(*needed: AnySpecialisation) -> tuple[AnySpecialisation, ...]:
    """Filter ``needed``: those that are not compiled and loaded in this process yet."""
    return tuple([each for each in needed if each not in _COMPILED])


def uncompiled(
    problem: Problem | Divergence, wanted: Iterable[str] = ()
) -> tuple[AnySpecialisation, ...]:
    """Specialisations to compile or load before ``wanted`` of ``problem`` are computed."""
    if isinstance(problem, Problem):
        return not_compiled(of(problem, wanted))
    return not_compiled(of_divergence(problem))
