"""Requests to copy from the documentation; a test sends each, and compares what is answered."""

from __future__ import annotations

from typing import Any

# PyTorch's numbers for these are 1.6094 2.1326 0.9373 1.6094, with a mean of 1.5722.
_LOGITS = [[0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [1, 3, 2, 3, 0], [0, 0, 0, 0, 0]]
_LABELS = [1, 4, 3, 2]
_WORKED: dict[str, Any] = {"logits": _LOGITS, "labels": _LABELS}
_PER_ELEMENT = [1.609438, 2.132575, 0.937270, 1.609438]
_LOG_PROBS = [
    [-1.609438, -1.609438, -1.609438, -1.609438, -1.609438],
    [-2.132575, -2.132575, -1.132575, -1.132575, -2.132575],
    [-2.937270, -0.937270, -1.937270, -0.937270, -3.937270],
    [-1.609438, -1.609438, -1.609438, -1.609438, -1.609438],
]
_PROBS = [
    [0.2, 0.2, 0.2, 0.2, 0.2],
    [0.118532, 0.118532, 0.322202, 0.322202, 0.118532],
    [0.053010, 0.391696, 0.144097, 0.391696, 0.019501],
    [0.2, 0.2, 0.2, 0.2, 0.2],
]
_ONE_HOT = [[0, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0]]
_GRADIENT = [
    [0.05, -0.2, 0.05, 0.05, 0.05],
    [0.029633, 0.029633, 0.080551, 0.080551, -0.220367],
    [0.013253, 0.097924, 0.036024, -0.152076, 0.004875],
    [0.05, 0.05, -0.2, 0.05, 0.05],
]
_LIKELY = [0, 2, 1, 0]


def _sums(count: int, total: float, weight: float | None = None) -> dict[str, Any]:
    """Members of every default answer that losses of parts are merged from."""
    return {"count": count, "weight_sum": weight or float(count), "loss_sum": total}


_LOSS = {"loss": 1.572180, "per_element": _PER_ELEMENT} | _sums(4, 6.288722)

_REPORT: dict[str, Any] = {
    "positions": 5,
    "count": 4,
    "weight_sum": 4.0,
    "loss_sum": 1.708351,
    "loss": 0.427088,
    "perplexity": 1.532787,
    "correct": 3,
    "accuracy": 0.75,
    "top5_correct": 4,
    "top5_accuracy": 1.0,
    "shape": [5],
    "classes_total": 3,
    "layout": "flat",
    "histogram": {
        "linear": {
            "edges": [
                0.0,
                0.0625,
                0.125,
                0.1875,
                0.25,
                0.3125,
                0.375,
                0.4375,
                0.5,
                0.5625,
                0.625,
                0.6875,
                0.75,
                0.8125,
                0.875,
                0.9375,
                1.0,
                1.0625,
                1.125,
                1.1875,
                1.25,
                1.3125,
                1.375,
                1.4375,
            ],
            "counts": [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        },
        "log": {
            "edges": [
                0.03125,
                0.046875,
                0.0625,
                0.09375,
                0.125,
                0.1875,
                0.25,
                0.375,
                0.5,
                0.75,
                1.0,
                1.5,
            ],
            "counts": [1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1],
        },
        "mean": 0.427088,
        "median": {"value": 0.095215, "low": 0.094727, "high": 0.095703},
        "p90": {"value": 1.406928, "low": 1.40625, "high": 1.407606},
        "p99": {"value": 1.406928, "low": 1.40625, "high": 1.407606},
        "min": 0.035976,
        "max": 1.407606,
        "nan": 0,
    },
    "calibration": {
        "bins": [
            {
                "low": 0.0,
                "high": 1.0,
                "count": 4,
                "correct": 3,
                "confidence": 0.845785,
                "accuracy": 0.75,
            }
        ],
        "ece": 0.095785,
        "mce": 0.095785,
        "brier": 0.268616,
        "temperature": {
            "current": 1.0,
            "best": 0.9195,
            "loss": 0.427088,
            "best_loss": 0.425054,
            "sample": 4,
        },
    },
    "classes": [
        {"class": 0, "count": 2, "loss": 0.721791, "accuracy": 0.5, "predicted": 1},
        {"class": 1, "count": 1, "loss": 0.094923, "accuracy": 1.0, "predicted": 1},
        {"class": 2, "count": 1, "loss": 0.169846, "accuracy": 1.0, "predicted": 2},
    ],
    "classes_shown": 3,
    "confusion": {"matrix": [[1, 0, 1], [0, 1, 0], [0, 0, 1]]},
    "worst": [
        {
            "index": [2],
            "label": 0,
            "prediction": 2,
            "loss": 1.407606,
            "confidence": 0.665241,
            "margin": -1.0,
        }
    ],
}

# By path: name -> (summary, request, the answer's members).
EXAMPLES: dict[str, dict[str, tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "/v1/cross_entropy": {
        "worked": ("Four rows of five classes", _WORKED, _LOSS),
        "masked": (
            "A masked logit, an ignored label, smoothing, and only the sum",
            {
                "logits": [[2.0, "-Infinity", 1.0], [0.5, 0.5, 0.5]],
                "labels": [0, -100],
                "reduction": "sum",
                "outputs": ["loss"],
            },
            {"loss": 0.313262},
        ),
        "probabilities": (
            "Class probabilities as labels, and label smoothing",
            {"logits": [[1.0, 2.0]], "labels": [[0.25, 0.75]], "label_smoothing": 0.1},
            {"loss": 0.588262, "per_element": [0.588262]} | _sums(1, 0.588262),
        ),
        "channels-last": (
            "One image of 1 x 2 pixels and three classes, the classes last",
            {"logits": [[[[1, 0, 0], [0, 2, 0]]]], "labels": [[[0, 1]]], "class_axis": -1},
            {"loss": 0.395495, "per_element": [[[0.551445, 0.239545]]]} | _sums(2, 0.790990),
        ),
        "training step": (
            "The gradient by the logits, the label's rank and the likeliest class, in one pass",
            _WORKED | {"outputs": ["loss", "gradient", "rank", "prediction"]},
            {"loss": 1.572180, "gradient": _GRADIENT, "rank": [1, 4, 1, 2], "prediction": _LIKELY},
        ),
        "scaled logits": (
            "Logits capped and divided by a temperature, a z-loss, and weighted samples",
            {
                "logits": [[10, -5, 2], [1, 2, 4]],
                "labels": [0, 1],
                "sample_weight": [1, 0.5],
                "softcap": 5,
                "temperature": 2,
                "z_loss": 0.01,
                "outputs": ["loss", "per_element", "log_sum_exp", "entropy"],
            },
            {
                "loss": 0.642577,
                "per_element": [0.288744, 0.675122],
                "log_sum_exp": [2.629662, 2.249513],
                "entropy": [0.538132, 0.984554],
            },
        ),
    },
    "/v1/nll_loss": {
        "worked": (
            "The log-softmax of the worked example",
            {"log_probs": _LOG_PROBS, "labels": _LABELS},
            _LOSS,
        ),
        "weighted": (
            "Weighted classes",
            {"log_probs": [[-0.5, -1.0], [-2.0, -0.25]], "labels": [0, 1], "weight": [1.0, 3.0]},
            {"loss": 0.3125, "per_element": [0.5, 0.75]} | _sums(2, 1.25, 4.0),
        ),
    },
    "/v1/log_softmax": {
        "worked": ("Four rows of five classes", {"logits": _LOGITS}, {"log_probs": _LOG_PROBS})
    },
    "/v1/softmax": {
        "worked": ("Four rows of five classes", {"logits": _LOGITS}, {"probs": _PROBS}),
        "by column": (
            "The classes along axis 0",
            {"logits": [[0, 1], [0, 1]], "class_axis": 0},
            {"probs": [[0.5, 0.5], [0.5, 0.5]]},
        ),
        "sampling": (
            "Logits capped, then sharpened by a temperature below 1",
            {"logits": [[1, 2, 4]], "softcap": 3, "temperature": 0.5},
            {"probs": [[0.030606, 0.146765, 0.822629]]},
        ),
    },
    "/v1/explain": {
        "worked": (
            "Four rows of five classes",
            _WORKED,
            {
                "softmax": _PROBS,
                "log_softmax": _LOG_PROBS,
                "one_hot": _ONE_HOT,
                "per_element": _PER_ELEMENT,
                "routes": {
                    "formula": 1.572180,
                    "nll_loss": 1.572180,
                    "cross_entropy": 1.572180,
                    "largest_difference": 0.0,
                },
            },
        )
    },
    "/v1/report": {
        "worked": (
            "Four positions that count, one of them wrong",
            {
                "logits": [[4, 0, 0], [0, 3, 0], [1, 0, 2], [0, 1, 3], [0, 5, 1]],
                "labels": [0, 1, 0, 2, -100],
                "bins": 1,
                "worst": 1,
            },
            _REPORT,
        )
    },
}
