"""Routes that are one kernel call each."""

from kernels import steps
from service.options import (
    BinaryCrossEntropyOptions,
    CrossEntropyOptions,
    LogitOptions,
    NllLossOptions,
)
from service.request.operation import Operation
from service.routes import divergence

OPERATIONS = (
    Operation(
        path="/v1/cross_entropy",
        summary="Cross-entropy of logits and labels",
        description="PyTorch's `cross_entropy`: minus the log-softmax of the logits at each label, "
        "or, for class-probability labels, minus its mean under them. In the same pass: the "
        "gradient, the log-softmax, and of each position the log-sum-exp, the entropy, the label's "
        "rank and the likeliest classes.",
        needs=("logits", "labels"),
        takes=("weight", "sample_weight", "mask", "segments", "chosen"),
        options=CrossEntropyOptions,
        compute=lambda given: steps.cross_entropy(**given),
        footprint=lambda given: steps.footprint(**given),
    ),
    Operation(
        path="/v1/nll_loss",
        summary="Negative log-likelihood of log-probabilities and labels",
        description="PyTorch's `nll_loss`: minus the log-probability at each label.",
        needs=("log_probs", "labels"),
        takes=("weight", "sample_weight", "mask", "segments"),
        options=NllLossOptions,
        compute=lambda given: steps.nll_loss(**given),
        footprint=lambda given: steps.footprint(given.pop("log_probs"), normalised=True, **given),
    ),
    Operation(
        path="/v1/binary_cross_entropy",
        summary="Binary cross-entropy of logits and labels",
        description="PyTorch's `binary_cross_entropy_with_logits`: each logit has a label of its "
        "own, 0 or 1 or a probability between, as in multi-label classification. In the same pass: "
        "the gradient.",
        needs=("logits", "labels"),
        takes=("weight", "pos_weight", "sample_weight"),
        options=BinaryCrossEntropyOptions,
        compute=lambda given: steps.binary_cross_entropy(**given),
        footprint=lambda given: steps.footprint(binary=True, **given),
    ),
    Operation(
        path="/v1/log_softmax",
        summary="Log-softmax of logits",
        description="The logits minus the logarithm of the sum of their exponentials, along the "
        "class axis.",
        needs=("logits",),
        options=LogitOptions,
        compute=lambda given: steps.log_softmax(**given),
        footprint=lambda given: steps.footprint(**given),
    ),
    Operation(
        path="/v1/softmax",
        summary="Softmax of logits",
        description="The exponentials of the logits, scaled to sum to 1 along the class axis.",
        needs=("logits",),
        options=LogitOptions,
        compute=lambda given: steps.softmax(**given),
        footprint=lambda given: steps.footprint(**given),
    ),
    divergence.OPERATION,
)
