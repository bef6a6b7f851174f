"""Public function of divergences: a student's softmax from a teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kernels import divergence, divergence_answer
from kernels.out import with_out
from kernels.plan import finish
from kernels.problem import Array


def kl_div(
    logits: Any,
    target_logits: Any = None,
    *,
    target_log_probs: Any = None,
    target_classes: Any = None,
    target_top_log_probs: Any = None,
    labels: Any = None,
    mask: Any = None,
    weight: Any = None,
    direction: str = "forward",
    beta: float = 0.5,
    tail: str = "bucket",
    temperature: float = 1.0,
    target_temperature: float | None = None,
    temperature_squared: bool = False,
    shift: int = 0,
    ignore_index: int = -100,
    reduction: str = "mean",
    class_axis: int | None = None,
    logits_dtype: str | None = None,
    empty: str = "nan",
    check_probabilities: bool = True,
    outputs: Sequence[str] | None = None,
    out: Mapping[str, Array] | None = None,
    device: str = "cpu",
) -> Any:
    """Divergence of the softmax of ``logits``, a student's, from a teacher's, in nats.

    The teacher is one of three: ``target_logits`` of the logits' shape; ``target_log_probs``, of
    the same shape, which must sum to 1 in probability within ``Divergence.tolerance`` (unless
    ``check_probabilities`` is false) and are scaled to do so; or a sparse one, ``target_classes``
    with their ``target_top_log_probs``, both of shape (.., K) for logits whose positions are (..),
    where class -1 is padding. What a sparse teacher gives to other classes is one more class on
    both sides with ``tail`` "bucket", is left out with "ignore", and is taken for nothing with
    "renormalize", which divides both sides by their sums over the listed classes.

    ``direction`` is "forward", KL(teacher || student); "reverse", KL(student || teacher); or "jsd",
    beta * KL(teacher || m) + (1 - beta) * KL(student || m) with m = beta * teacher +
    (1 - beta) * student. Logits are divided by ``temperature``, targets by ``target_temperature``
    (None: the same), and with ``temperature_squared`` divergences are multiplied by
    ``temperature**2``.

    ``labels`` (class indices), ``mask`` (0: left out) and ``weight`` have one element a position;
    labels of ``ignore_index`` leave theirs out. With ``shift``, all three of position t are those
    of ``logits[t - shift]`` on the second axis of the positions.

    Returns the divergence reduced over positions, by their weights for "mean"; or, where
    ``outputs`` lists some of ``divergence_answer.OUTPUTS``, a dict of these arrays;
    ``out={"gradient": array}`` as in ``cross_entropy``, but with the classes as neighbours in
    memory, row by row. Raises ``InvalidInput``.
    """
    problem = divergence.check(
        logits,
        target_logits=target_logits,
        target_log_probs=target_log_probs,
        target_classes=target_classes,
        target_top_log_probs=target_top_log_probs,
        labels=labels,
        mask=mask,
        weight=weight,
        direction=direction,
        beta=beta,
        tail=tail,
        temperature=temperature,
        target_temperature=target_temperature,
        temperature_squared=temperature_squared,
        shift=shift,
        ignore_index=ignore_index,
        reduction=reduction,
        class_axis=class_axis,
        logits_dtype=logits_dtype,
        empty=empty,
        check_probabilities=check_probabilities,
        device=device,
    )
    inputs = {
        "logits": logits,
        "target_logits": target_logits,
        "target_log_probs": target_log_probs,
        "target_classes": target_classes,
        "target_top_log_probs": target_top_log_probs,
        "labels": labels,
        "mask": mask,
        "weight": weight,
    }
    names = divergence_answer.wanted(problem, ("loss",) if outputs is None else outputs)
    problem = with_out(problem, names, out, inputs)
    answers = {**finish(divergence_answer.answer_in_steps(problem, names)), **(out or {})}
    return answers["loss"] if outputs is None else {name: answers[name] for name in outputs}
