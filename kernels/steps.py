"""Public functions a step at a time, for callers that do other work between two steps, or are still
receiving the logits.

A step takes a few milliseconds. Results have the bits of ``kernels.cross_entropy`` and the others.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeAlias

from kernels import divergence, divergence_answer, plan_cache
from kernels.answer import answer_in_steps, wanted
from kernels.binary import check as check_binary
from kernels.cpu.launch import divergence as divergence_launch
from kernels.cpu.launch.loss import result_bytes
from kernels.devices import in_steps, quick, uncompiled, window
from kernels.plan import STEP, Computed, finish
from kernels.problem import Array, Problem, check, unlabelled
from kernels.specialisations import AnySpecialisation
from kernels.teacher import DENSE

Steps: TypeAlias = Generator[int, None, dict[str, Array]]


class Work(NamedTuple):
    """A checked problem that waits to be computed.

    ``elements`` is the number of logits, ``result_bytes`` the size of the results. ``quick``:
    it takes well below a millisecond on the calling thread alone, and nothing is to be compiled.
    ``steps`` yields, before each step, how many bytes from the first logit on have to be there;
    all other tensors have to be there from the start. It returns the outputs by name, and raises
    ``InvalidInput`` for a label that is no class. ``window``: only so many bytes before the
    end of those are read from then on, so earlier ones may be overwritten; None: all may be read,
    or no ``step`` was given. ``uncompiled``: the first step would compile these, for some 20 s
    each; see ``kernels.warm.job``.
    """

    elements: int
    result_bytes: int
    quick: bool
    steps: Steps
    window: int | None = None
    uncompiled: tuple[AnySpecialisation, ...] = ()

    def run(self) -> dict[str, Array]:
        """Compute the outputs at once."""
        return finish(self.steps)


class Footprint(NamedTuple):
    """Memory that a computation takes: ``result_bytes`` and ``window`` as in ``Work``."""

    result_bytes: int
    window: int | None


def footprint(
    logits: Any,
    labels: Any = None,
    *,
    step: int,
    outputs: Sequence[str] = ("log_probs",),
    normalised: bool = False,
    binary: bool = False,
    **options: Any,
) -> Footprint:
    """The footprint of the losses, or without ``labels`` of the log-softmax or softmax.

    From shapes and dtypes: no element is read of C-contiguous and aligned arrays. Raises
    ``InvalidInput``.
    """
    if labels is None:
        problem, names = unlabelled(logits, **options), tuple(outputs)
    else:
        options.pop("shift", None)  # it moves labels, which have not come yet
        if binary:
            problem = check_binary(logits, labels, **options)
        else:
            problem = check(logits, labels, normalised=normalised, **options)
        names = wanted(problem, outputs)
    return Footprint(result_bytes(problem, names), window(problem, step))


def cross_entropy(
    logits: Any, labels: Any, *, outputs: Sequence[str], step: int | None = None, **options: Any
) -> Work:
    """``kernels.cross_entropy`` in steps of about ``step`` bytes of logits (STEP, if None).

    Raises ``InvalidInput``. Both hold for all functions here.
    """
    known = plan_cache.answers(logits, labels, tuple(outputs), options)
    if known is not None:
        answers = {name: known[name] for name in outputs}
        size = sum([array.nbytes for array in answers.values()])
        return Work(logits.size, size, True, _done(answers))
    return _losses(check(logits, labels, **options), outputs, step)


def nll_loss(
    log_probs: Any, labels: Any, *, outputs: Sequence[str], step: int | None = None, **options: Any
) -> Work:
    """``kernels.nll_loss``."""
    problem = check(log_probs, labels, normalised=True, **options)
    return _losses(problem, outputs, step)


def binary_cross_entropy(
    logits: Any, labels: Any, *, outputs: Sequence[str], step: int | None = None, **options: Any
) -> Work:
    """``kernels.binary_cross_entropy``."""
    return _losses(check_binary(logits, labels, **options), outputs, step)


def kl_div(logits: Any, *, outputs: Sequence[str], step: int | None = None, **options: Any) -> Work:
    """``kernels.kl_div``."""
    problem = divergence.check(logits, **options)
    names = divergence_answer.wanted(problem, outputs)
    answers = divergence_answer.answer_in_steps(problem, names, step or STEP)
    return Work(
        problem.elements,
        divergence_launch.result_bytes(problem, names),
        quick(problem),
        _named(answers, outputs),
        None if step is None else window(problem, step),
        uncompiled(problem),
    )


def kl_div_footprint(
    logits: Any,
    *,
    step: int,
    outputs: Sequence[str],
    class_axis: int | None = None,
    device: str = "cpu",
    **given: Any,
) -> Footprint:
    """The footprint of ``kl_div``, as ``footprint``: no element is read.

    ``given`` may hold dense targets; a sparse teacher, labels and options make no difference.
    """
    dense = {name: given[name] for name in DENSE if given.get(name) is not None}
    problem = divergence.check(
        logits, class_axis=class_axis, device=device, **(dense or {DENSE[0]: logits})
    )
    return Footprint(divergence_launch.result_bytes(problem, tuple(outputs)), window(problem, step))


def log_softmax(logits: Any, *, step: int | None = None, **options: Any) -> Work:
    """``kernels.log_softmax``, as "log_probs"."""
    return _per_class(unlabelled(logits, **options), ("log_probs",), "log_probs", step)


def softmax(logits: Any, *, step: int | None = None, **options: Any) -> Work:
    """``kernels.softmax``, as "probs"."""
    return _per_class(unlabelled(logits, **options), ("log_probs", "probs"), "probs", step)


def _losses(problem: Problem, outputs: Sequence[str], step: int | None) -> Work:
    names = wanted(problem, outputs)
    answers = answer_in_steps(problem, names, step or STEP)
    return _work(problem, names, _named(answers, outputs), step)


def _per_class(problem: Problem, names: tuple[str, ...], called: str, step: int | None) -> Work:
    computed = in_steps(problem, names, step=step or STEP)
    return _work(problem, names, _renamed(computed, called), step)


def _done(answers: dict[str, Array]) -> Steps:
    yield from ()
    return answers


def _named(steps: Steps, outputs: Sequence[str]) -> Steps:
    answers = yield from steps
    return {name: answers[name] for name in outputs}


def _renamed(steps: Generator[int, None, Computed], called: str) -> Steps:
    _, arrays = yield from steps
    return {called: arrays["log_probs"]}


def _work(problem: Problem, names: tuple[str, ...], steps: Steps, step: int | None) -> Work:
    reach = None if step is None else window(problem, step)
    return Work(
        problem.logits.size,
        result_bytes(problem, names),
        quick(problem, names),
        steps,
        reach,
        uncompiled(problem, names),
    )
