"""Result of a run: what its total and its report say, with the shards that the worst lie in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels import dtypes
from kernels.answer import mean, narrowed
from kernels.reduce import SCALE
from service.bulk.plan import Plan
from service.bulk.run import Outcome


def result(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """Numbers of a run without a report: those of ``lossd score`` of one file, and of its shards.

    ``failed`` lists what has no result: it counts for nothing. ``bits_per_byte`` is None then.
    """
    total = outcome.total
    loss_sum, weight_sum = total.sums()
    plain = not _option(plan, "label_smoothing") and not _option(plan, "z_loss")
    loss = mean(loss_sum, weight_sum, "nan", plain and loss_sum != 0.0)
    right, counted, perplexities = total.exact.totals().tolist()
    bits = None
    if plan.bytes is not None and not outcome.failures:
        bits = loss_sum / (SCALE * math.log(2.0) * plan.bytes)
    return {
        "loss": _plain(narrowed(loss, plan.dtype)),
        "perplexity": _exp(loss),
        "accuracy": right / counted if counted else math.nan,
        "elements": total.counts["elements"],
        "ignored": total.counts["ignored"],
        "count": total.counts["count"],
        "weight_sum": weight_sum / SCALE,
        "loss_sum": loss_sum / SCALE,
        "bits_per_byte": bits,
        "by_sequence": _by_sequence(plan, outcome, perplexities),
        "worst": _worst(plan, outcome),
        **_shards(plan, outcome),
    }


def of_report(plan: Plan, outcome: Outcome, numbers: dict[str, Any]) -> dict[str, Any]:
    """``numbers`` of a run's report; its worst positions with their shard, and the row there."""
    worst = []
    for element in numbers["worst"]:
        row, *inside = element["index"]
        source = plan.source_at_row(row)
        worst.append({**element, "shard": source.location, "position": [row - source.row, *inside]})
    return {**numbers, "worst": worst, **_shards(plan, outcome)}


def _shards(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    return {
        "shards": len(plan.sources) + len(plan.failures),
        "rows": plan.rows,
        "pieces": plan.pieces,
        "failed": [
            {
                "shard": failure.location,
                "rows": None if failure.first is None else [failure.first, failure.stop],
                "reason": failure.reason,
            }
            for failure in outcome.failures
        ],
    }


def _by_sequence(plan: Plan, outcome: Outcome, perplexities: float) -> dict[str, Any] | None:
    terms, counts = plan.terms, outcome.total.counts
    if terms is None or not (terms.tail or "segments" in terms.tensors):
        return None
    many, weighed = counts["sequences"], counts["weighed"]
    greedy = None if terms.soft else counts["greedy"] / many if many else math.nan
    perplexity = perplexities / weighed if weighed else math.nan
    return {"sequences": many, "greedy": greedy, "perplexity": perplexity}


def _worst(plan: Plan, outcome: Outcome) -> list[dict[str, Any]]:
    found = []
    for record in outcome.total.worst:
        source = plan.source_at_position(int(record["position"]))
        shape = source.rows, *source.tail
        inside = np.unravel_index(int(record["position"]) - source.position, shape)
        wide = dtypes.BY_NAME[source.dtype].result
        found.append(
            {
                "shard": source.location,
                "position": [int(index) for index in inside],
                "label": int(record["label"]),
                "predicted": int(record["predicted"]),
                "loss": _plain(wide.type(record["loss"])),
            }
        )
    return found


def _option(plan: Plan, name: str) -> Any:
    return plan.job.terms.get(name)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _plain(value: Any) -> float:
    """Return the float of ``value``'s shortest text: a float32 has 9 digits, not 17."""
    return float(str(value))
