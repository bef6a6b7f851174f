"""Answer of ``/v1/report`` to the example of the documentation."""

from __future__ import annotations

from typing import Any

_QUANTILE = {"value": 1.406928, "low": 1.40625, "high": 1.407606}
REPORT: dict[str, Any] = {
    "positions": 4,
    "count": 3,
    "weight_sum": 3.0,
    "loss_sum": 1.538505,
    "loss": 0.512835,
    "perplexity": 1.670019,
    "correct": 2,
    "accuracy": 0.666667,
    "top5_correct": 3,
    "top5_accuracy": 1.0,
    "shape": [4],
    "classes_total": 3,
    "layout": "flat",
    "histogram": {
        "linear": {"edges": [i / 16 for i in range(24)], "counts": [1, 1, *[0] * 20, 1]},
        "log": {
            "edges": [
                *(0.03125, 0.046875, 0.0625, 0.09375, 0.125, 0.1875),
                *(0.25, 0.375, 0.5, 0.75, 1.0, 1.5),
            ],
            "counts": [1, 0, 0, 1, *[0] * 6, 1],
        },
        "mean": 0.512835,
        "median": {"value": 0.095215, "low": 0.094727, "high": 0.095703},
        "p90": _QUANTILE,
        "p99": _QUANTILE,
        "min": 0.035976,
        "max": 1.407606,
        "nan": 0,
    },
    "calibration": {
        "bins": [
            {"low": 0.0, "high": 0.5, "count": 0, "correct": 0}
            | {"confidence": None, "accuracy": None},
            {"low": 0.5, "high": 1.0, "count": 3, "correct": 2}
            | {"confidence": 0.846449, "accuracy": 0.666667},
        ],
        "ece": 0.179782,
        "mce": 0.179782,
        "brier": 0.345087,
        "temperature": {"current": 1.0, "best": 1.093, "loss": 0.512835, "best_loss": 0.510451}
        | {"sample": 3},
    },
    "classes": [
        {"class": 0, "count": 2, "loss": 0.721791, "accuracy": 0.5, "predicted": 1},
        {"class": 1, "count": 1, "loss": 0.094923, "accuracy": 1.0, "predicted": 1},
        {"class": 2, "count": 0, "loss": None, "accuracy": None, "predicted": 1},
    ],
    "classes_shown": 3,
    "confusion": {"matrix": [[1, 0, 1], [0, 1, 0], [0, 0, 0]]},
    "worst": [
        {"index": [2], "label": 0, "prediction": 2, "loss": 1.407606}
        | {"confidence": 0.665241, "margin": -1.0}
    ],
}
