"""Numbers of a report, as nested dicts and lists of Python's own types."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels.report import histogram
from kernels.report.classes import Losses
from kernels.report.state import Report

Array = np.ndarray[Any, Any]

# Sequences, at most, that a report lists: those of most loss.
LISTED = 1000


def numbers(report: Report) -> dict[str, Any]:
    """All numbers of ``report``: what ``/v1/report`` answers.

    Floats that are not finite stay so: NaN is a mean over nothing.
    """
    report.settle()
    form, sums = report.form, report.classes.sums
    sums = sums.of(np.flatnonzero(sums.counts))  # a few of many classes
    loss_sum, weight_sum = sums.losses.total(), sums.weight()
    loss = _ratio(loss_sum, weight_sum)
    right = int(report.classes.right.sum())
    classes = report.classes.listed()
    found = {
        "positions": report.positions,
        "count": report.count,
        "weight_sum": weight_sum,
        "loss_sum": loss_sum,
        "loss": loss,
        "perplexity": _exp(loss),
        "correct": right,
        "accuracy": _ratio(right, report.count),
        "top5_correct": report.top5,
        "top5_accuracy": _ratio(report.top5, report.count),
        "shape": list(report.shape),
        "classes_total": form.classes,
        "layout": form.layout,
        "histogram": _histogram(report, loss_sum),
        "calibration": {
            **report.calibration.numbers(report.count),
            "temperature": report.sample.best_temperature(form.temperature),
        },
        "classes": classes,
        "classes_shown": len(classes),
        "confusion": report.classes.confusion(),
        "worst": _worst(report),
    }
    if report.sequences is not None:
        found["sequences_total"] = len(report.sequences.counts)
        found["sequences"] = _sequences(report.sequences, report.in_order)
    if form.layout == "image":
        images, height, width = report.shape
        found["images"] = {"count": images, "height": height, "width": width}
    return found


def _ratio(value: float, by: float) -> float:
    if by == 0.0:
        return math.nan if value == 0.0 or math.isnan(value) else math.copysign(math.inf, value)
    return value / by


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _histogram(report: Report, loss_sum: float) -> dict[str, Any]:
    counts, low, high = report.histogram, report.low, report.high
    some = report.count > report.nan
    return {
        "linear": histogram.linear(counts, low, high),
        "log": histogram.logarithmic(counts, low, high),
        "mean": _ratio(loss_sum, report.count),
        "median": histogram.quantile(counts, 0.5, low, high),
        "p90": histogram.quantile(counts, 0.9, low, high),
        "p99": histogram.quantile(counts, 0.99, low, high),
        "min": low if some else math.nan,
        "max": high if some else math.nan,
        "nan": report.nan,
    }


def _worst(report: Report) -> list[dict[str, Any]]:
    columns = {name: column.tolist() for name, column in report.worst.columns.items()}
    indices = (
        np.transpose(np.unravel_index(report.worst.columns["positions"], report.shape)).tolist()
        if report.shape and columns["positions"]
        else [[] for _ in columns["positions"]]
    )
    return [
        {
            "index": index,
            "label": columns["labels"][i],
            "prediction": columns["predictions"][i],
            "loss": columns["losses"][i],
            "confidence": columns["confidences"][i],
            "margin": columns["margins"][i],
        }
        for i, index in enumerate(indices)
    ]


def _sequences(sums: Losses, in_order: Array | None) -> list[dict[str, Any]]:
    """A row a sequence, or for the LISTED ones of the largest mean loss, in their order."""
    (_, means), total = sums.totals(), len(sums.counts)
    shown = np.arange(total)
    if total > LISTED:
        shown = np.sort(np.lexsort((shown, -np.nan_to_num(means, nan=-np.inf)))[:LISTED])
    rows: list[dict[str, Any]] = [
        {"index": index, "count": count, "loss": loss, "perplexity": _exp(loss)}
        for index, count, loss in zip(
            shown.tolist(), sums.counts[shown].tolist(), means[shown].tolist(), strict=True
        )
    ]
    if in_order is not None and total:
        losses = in_order.reshape(total, -1)
        for row in rows:
            row["losses"] = losses[row["index"]].tolist()
    return rows
