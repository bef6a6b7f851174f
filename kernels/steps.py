"""The door's functions a step at a time, for who has other work to do in between, or is still
receiving the logits.

A step takes a few milliseconds. The numbers are those of the door's functions, bit for bit.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from kernels import again
from kernels.answer import answer_in_steps, wanted
from kernels.cpu.launch import STEP, finish, result_bytes
from kernels.devices import in_steps, quick
from kernels.problem import Array, Problem, check, unlabelled


class Work(NamedTuple):
    """A checked problem that waits to be computed.

    ``elements`` is the number of logits, ``result_bytes`` what the results will take. ``quick``:
    it takes well below a millisecond on the calling thread alone, and nothing is to be compiled.
    ``steps`` yields, before each step, how many bytes from the first logit on have to be there;
    everything else that was given has to be from the start. It returns the outputs by name, and
    raises ``InvalidInput`` for a label that is no class.
    """

    elements: int
    result_bytes: int
    quick: bool
    steps: Generator[int, None, dict[str, Array]]

    def run(self) -> dict[str, Array]:
        """The outputs, all steps at once."""
        return finish(self.steps)


def cross_entropy(logits: Any, labels: Any, *, outputs: Sequence[str], **options: Any) -> Work:
    """``kernels.cross_entropy``. Raises ``InvalidInput``, as all here."""
    known = again.answers(logits, labels, outputs, options)
    if known is not None:
        answers = {name: known[name] for name in outputs}
        size = sum([array.nbytes for array in answers.values()])
        return Work(logits.size, size, True, _done(answers))
    return _losses(check(logits, labels, **options), outputs)


def nll_loss(log_probs: Any, labels: Any, *, outputs: Sequence[str], **options: Any) -> Work:
    """``kernels.nll_loss``."""
    return _losses(check(log_probs, labels, normalised=True, **options), outputs)


def log_softmax(logits: Any, **options: Any) -> Work:
    """``kernels.log_softmax``, as "log_probs"."""
    problem, names = unlabelled(logits, **options), ("log_probs",)
    return _work(problem, names, _per_class(problem, names, "log_probs"))


def softmax(logits: Any, **options: Any) -> Work:
    """``kernels.softmax``, as "probs"."""
    problem, names = unlabelled(logits, **options), ("log_probs", "probs")
    return _work(problem, names, _per_class(problem, names, "probs"))


def _losses(problem: Problem, outputs: Sequence[str]) -> Work:
    names = wanted(problem, outputs)
    return _work(problem, names, _named(answer_in_steps(problem, names, STEP), outputs))


def _done(answers: dict[str, Array]) -> Generator[int, None, dict[str, Array]]:
    yield from ()
    return answers


def _named(
    steps: Generator[int, None, dict[str, Array]], outputs: Sequence[str]
) -> Generator[int, None, dict[str, Array]]:
    answers = yield from steps
    return {name: answers[name] for name in outputs}


def _per_class(
    problem: Problem, names: tuple[str, ...], called: str
) -> Generator[int, None, dict[str, Array]]:
    _, arrays = yield from in_steps(problem, names, step=STEP)
    return {called: arrays["log_probs"]}


def _work(
    problem: Problem, names: tuple[str, ...], steps: Generator[int, None, dict[str, Array]]
) -> Work:
    return Work(problem.logits.size, result_bytes(problem, names), quick(problem), steps)
