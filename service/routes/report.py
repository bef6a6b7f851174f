"""Route that reports what is worth knowing of a model's losses."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from kernels import devices, report
from kernels.steps import Footprint, Steps, Work
from service.codecs.json.values import written
from service.options import ReportOptions
from service.request.operation import Document, Operation

_DOCUMENT = Document(
    "report",
    {
        "positions": "How many labels there are.",
        "count": "How many of them count: are not ignored, nor of `sample_weight` 0.",
        "weight_sum": "The sum of their weights.",
        "loss_sum": "The sum of their losses, exact, and rounded once.",
        "loss": "The mean loss: `loss_sum` by `weight_sum`.",
        "perplexity": "The exponential of the loss.",
        "correct": "How many labels are the prediction.",
        "accuracy": "`correct` by `count`.",
        "top5_correct": "How many labels are among the five likeliest classes.",
        "top5_accuracy": "`top5_correct` by `count`.",
        "shape": "The labels' shape.",
        "classes_total": "The number of classes.",
        "layout": "What the axes of the labels are: image, sequence or flat.",
        "histogram": "Per-element losses: counts in linear and logarithmic bins; mean, extremes,"
        " and median, 90th and 99th percentile with their bounds; how many are NaN.",
        "calibration": "Bins of confidence with their accuracy; ECE, MCE and Brier score; the"
        " temperature that minimises the cross-entropy of a sample.",
        "classes": "Count, mean loss, accuracy and predictions of each class, or of the 1000 with"
        " the most loss.",
        "classes_shown": "How many classes are listed.",
        "confusion": "The matrix, labels down and predictions across, of up to 64 classes; or the"
        " 32 most confused pairs.",
        "worst": "The positions of most loss: index, label, prediction, loss, confidence, margin"
        " (the label's logit minus the largest other).",
        "sequences": "For sequences: count, loss and perplexity of each, or of the 1000 with the"
        " largest loss; and their losses in order, for up to 4096 positions in all.",
        "sequences_total": "For sequences: their number.",
        "images": "For images: their number, height and width.",
    },
    {
        "report": "the JSON as bytes",
        "loss_map": "per-element loss, float32",
        "prediction_map": "likeliest class, int32",
        "confidence_map": "its probability, float32",
        "label_map": "the labels, int32",
        "counted_map": "1 where the position counts, else 0 (ignored, or of weight 0), uint8",
    },
)


def _compute(maps: bool, given: dict[str, Any]) -> Work:
    step = given.pop("step")
    problem, begun = report.begin(**given)
    size, window = report.footprint(problem, begun, maps, step)
    steps = _steps(begun, report.in_steps(problem, begun, maps, step))
    missing = (*devices.uncompiled(problem), *report.uncompiled(problem))
    return Work(problem.logits.size, size, False, steps, window, missing)


def _steps(begun: report.Report, steps: Steps) -> Steps:
    maps = yield from steps
    text = written(report.numbers(begun)) + b"\n"
    return {_DOCUMENT.output: np.frombuffer(text, np.uint8), **maps}


def _footprint(maps: bool, given: dict[str, Any]) -> Footprint:
    step = given.pop("step")
    return report.footprint(*report.begin(**given), maps, step)


_NUMBERS = Operation(
    path="/v1/report",
    summary="Report of a model's losses: where, for which classes, how confident",
    description="In one pass over the logits: the loss with its counts, perplexity, accuracy and "
    "top-5 accuracy; the histogram of per-element losses with mean, median and percentiles; "
    "calibration (reliability bins, ECE, MCE, Brier score, and the temperature that minimises the "
    "loss of a sample); each class; the confusion of classes; the positions of most loss; each "
    "sequence. In the binary formats `report` holds the JSON as bytes, beside maps in the labels' "
    "shape: `loss_map`, `prediction_map`, `confidence_map`, `label_map` and `counted_map`. Labels "
    "are class indices. The numbers are explained in `docs/report.md`.",
    needs=("logits", "labels"),
    takes=("weight", "sample_weight"),
    options=ReportOptions,
    compute=partial(_compute, False),
    footprint=partial(_footprint, False),
    document=_DOCUMENT,
)
OPERATION = _NUMBERS._replace(
    compute=partial(_compute, True), footprint=partial(_footprint, True), in_json=_NUMBERS
)
