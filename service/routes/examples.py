"""Requests to copy from the documentation; a test sends each, and compares what is answered."""

from __future__ import annotations

from typing import Any

from service.routes.example_report import REPORT

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
        "likeliest classes": (
            "The two likeliest classes, the label's margin, and the log-probability of class 2",
            {
                "logits": [[1, 3, 2, 3, 0]],
                "labels": [3],
                "top_k": 2,
                "chosen": [2],
                "outputs": [
                    "top_classes",
                    "top_log_probs",
                    "max_logit",
                    "confidence",
                    "margin",
                    "chosen_log_probs",
                ],
            },
            {
                "top_classes": [[1, 3]],
                "top_log_probs": [[-0.937270, -0.937270]],
                "max_logit": [3.0],
                "confidence": [0.391696],
                "margin": [0.0],
                "chosen_log_probs": [[-1.937270]],
            },
        ),
        "focal loss": (
            "A focal loss, with gamma 2: what is known well counts little",
            _WORKED | {"focal": 2, "outputs": ["loss", "per_element"]},
            {"loss": 1.015971, "per_element": [1.030040, 1.656982, 0.346822, 1.030040]},
        ),
        "sequences": (
            "Two texts of four tokens, one padded, each token scored by the logits before it: the"
            " log-likelihood of each, whether it is greedy, and the perplexity",
            {
                "logits": [
                    [[3, 1, 0], [0, 4, 1], [1, 0, 2], [0, 0, 0]],
                    [[0, 2, 1], [5, 0, 0], [0, 0, 1], [2, 0, 0]],
                ],
                "labels": [[1, 0, 1, 2], [2, 2, 0, 0]],
                "mask": [[1, 1, 1, 1], [1, 1, 1, 0]],
                "class_axis": -1,
                "shift": 1,
                "outputs": [
                    "sequence_loss",
                    "sequence_count",
                    "sequence_greedy",
                    "perplexity",
                    "sequence_perplexity",
                ],
            },
            {
                "sequence_loss": [0.643336, 1.420992],
                "sequence_count": [3, 2],
                "sequence_greedy": [1, 0],
                "perplexity": 1.511142,
                "sequence_perplexity": 1.637087,
            },
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
    "/v1/binary_cross_entropy": {
        "worked": (
            "Two rows of three labels, of which one is not known",
            {
                "logits": [[1.5, -2.0, 0.0], [3.0, 0.5, -1.0]],
                "labels": [[1, 0, 1], [1, -1, 0]],
                "ignore_index": -1,
            },
            {
                "loss": 0.276668,
                "per_element": [[0.201413, 0.126928, 0.693147], [0.048587, 0.000000, 0.313262]],
            }
            | _sums(5, 1.383338),
        ),
        "weighted": (
            "Probabilities as labels, weights of positive labels, and the gradient",
            {
                "logits": [[2.0, -1.0]],
                "labels": [[0.9, 0.2]],
                "pos_weight": [1.0, 3.0],
                "reduction": "sum",
                "outputs": ["loss", "gradient"],
            },
            {"loss": 1.365494, "gradient": [[-0.019203, -0.223482]]},
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
    "/v1/kl_div": {
        "worked": (
            "Two rows of three classes against a teacher's logits",
            {"logits": [[2, 1, 0], [0.5, 0.5, 3]], "target_logits": [[1, 1, 0], [0, 1, 3]]},
            {"loss": 0.070774, "per_element": [0.123292, 0.018255]} | _sums(2, 0.141547),
        ),
        "quantisation": (
            "With labels: the change of their probability, and whether the likeliest class stays",
            {
                "logits": [[2, 1, 0], [0.5, 0.5, 3]],
                "target_logits": [[1, 1, 0], [0, 1, 3]],
                "labels": [0, 2],
                "outputs": ["per_element", "same_top", "delta_p"],
            },
            {
                "per_element": [0.123292, 0.018255],
                "same_top": [1, 1],
                "delta_p": [0.242922, 0.015186],
            },
        ),
        "distillation": (
            "Jensen-Shannon divergence from log-probabilities, at a temperature, with its gradient",
            {
                "logits": [[2, 1, 0]],
                "target_log_probs": [[-0.356675, -1.609438, -2.302585]],
                "direction": "jsd",
                "temperature": 2,
                "temperature_squared": True,
                "outputs": ["loss", "gradient"],
            },
            {"loss": 0.001903, "gradient": [[-0.008373, 0.014030, -0.005657]]},
        ),
        "sparse teacher": (
            "The two likeliest classes of one element, and one of another; the rest is a class",
            {
                "logits": [[2, 1, 0, -1], [0, 0, 0, 0]],
                "target_classes": [[0, 1], [2, -1]],
                "target_top_log_probs": [[-0.5, -1.2], [-0.3, 0]],
            },
            {"loss": 0.270897, "per_element": [0.012440, 0.529355]} | _sums(2, 0.541794),
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
            REPORT,
        )
    },
}
