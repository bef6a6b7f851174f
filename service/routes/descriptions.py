"""Descriptions of tensors and outputs, for the OpenAPI description."""

from service.routes import divergence

TENSORS = {
    "logits": "Unnormalised scores: `(C)`, `(N, C)` or `(N, C, d1, ..., dK)`, C classes along"
    " `class_axis`. float32, float64, float16 or bfloat16.",
    "log_probs": "Log-probabilities, shaped and typed as logits are.",
    "labels": "Class indices of any integer type, in the logits' shape without the class axis:"
    " each from 0 to C - 1, or `ignore_index`; JSON may spell them as floats (`2.0`)."
    " `/v1/cross_entropy` also takes class probabilities, floating and in exactly the logits'"
    " shape: a sum of 1 for each element, and none below 0 (`check_probabilities`). In"
    " `/v1/binary_cross_entropy`, in the logits' shape: 0 or 1, or floating-point from 0 to 1, or"
    " `ignore_index`.",
    "weight": "One weight per class, `(C)`, finite: scales each element's loss by the weight of its"
    " label. Boolean ones are 1 and 0. By default all are 1. In `/v1/binary_cross_entropy` of a"
    " shape that broadcasts to the logits': scales each loss, and does not count in a mean's"
    " denominator.",
    "sample_weight": "One weight per label, in the logits' shape without the class axis, finite:"
    " scales each element's loss, and counts in the denominator of a mean as class weights do."
    " Boolean ones are 1 and 0. By default all are 1. In `/v1/binary_cross_entropy`, of a shape"
    " that broadcasts to the logits'.",
    "mask": "Integers or Boolean, in the labels' shape, those being class indices: where it is 0,"
    " the label at the same place is ignored, whatever it is. By default all are 1.",
    "segments": "Integers, in the labels' shape: the number of the sequence that each label belongs"
    " to, where several are packed into a row; from 0 to the number of positions in a row. Outputs"
    " by sequence then have the shape (rows, largest number + 1), or without rows of labels of one"
    " dimension. By default each row is a sequence.",
    **divergence.TENSORS,
    "pos_weight": "Of `/v1/binary_cross_entropy`: weights of positive labels, finite, of a shape"
    " that broadcasts to the logits': `(C)` is one for each place on the last axis.",
    "chosen": "Classes whose log-probabilities `chosen_log_probs` has: `(K)`, the same ones for all"
    " elements, or the labels' shape and K. Any integer type, each from 0 to C - 1.",
}
OUTPUTS = {
    "loss": "The loss as `reduction` says: one number, or with `none` the per-element losses.",
    "per_element": "The unreduced loss, in the labels' shape; 0 where the label is ignored.",
    "log_sum_exp": "The logarithm of the sum of the exponentials of each element's logits, in the"
    " labels' shape.",
    "entropy": "The entropy of each element's softmax, in nats, in the labels' shape.",
    "rank": "How many classes come before the label by their logits (of several alike, the first"
    " class comes first), in the labels' shape: 0 where it is the likeliest, so that top-k accuracy"
    " is the share below k; -1 where the label is ignored or a logit is NaN. Not for labels that"
    " are probabilities.",
    "prediction": "The class of the largest logit, the first of several alike, in the labels'"
    " shape.",
    "gradient": "The derivative of the loss, or with `none` of its sum, by each logit, in the"
    " logits' shape; 0 where the label is ignored.",
    "log_probs": "The log-softmax, in the logits' shape.",
    "count": "How many elements are not ignored, an integer.",
    "weight_sum": "The sum of their weights, the denominator of the mean: of the weights of their"
    " labels times `sample_weight`, or 1 each.",
    "loss_sum": "The sum of the per-element losses, as float64. Means of parts of a batch are"
    " merged by the sum of all `loss_sum` over that of all `weight_sum`.",
    "perplexity": "The exponential of the mean loss, `loss_sum` over `weight_sum`, so of all"
    " elements together (of all tokens, not of sequences), whatever `reduction` is.",
    "sequence_loss": "The sum of the per-element losses of each sequence, in float64, added in"
    " order; without weights and smoothing its log-likelihood is minus that. One value for each"
    " index of the labels' first axis, or each of `segments`.",
    "sequence_count": "How many elements of each sequence are not ignored.",
    "sequence_greedy": "1 where every label of the sequence, but for ignored ones, is the likeliest"
    " class (of rank 0), else 0. Not for labels that are probabilities.",
    "sequence_perplexity": "The mean of the perplexities of the sequences, each the exponential of"
    " its own mean loss; sequences without an element that counts are left out.",
    "bits_per_byte": "`loss_sum` in bits, over the option `bytes`.",
    "probs": "The softmax, in the logits' shape.",
    "softmax": "The softmax, in the logits' shape.",
    "log_softmax": "The log-softmax, in the logits' shape.",
    "one_hot": "1 where the label is, else 0, in the logits' shape; all 0 where it is ignored.",
    "routes": "The loss by each route, and the largest difference between two of them.",
    **divergence.OUTPUTS,
    "max_logit": "The largest logit of each element, after `softcap` and `temperature`, in the"
    " labels' shape.",
    "confidence": "The probability of the likeliest class, in the labels' shape.",
    "margin": "The label's logit minus the largest of all others, after `softcap` and"
    " `temperature`, in the labels' shape: above 0 where the label is the likeliest; NaN where it"
    " is ignored, and infinite with a single class. Not for labels that are probabilities.",
    "top_log_probs": "The `top_k` largest log-probabilities of each element, from the largest on,"
    " in the labels' shape and one more axis.",
    "top_classes": "Their classes, of several alike the first, in the same shape.",
    "chosen_log_probs": "The log-probabilities of the classes in `chosen`, in the labels' shape and"
    " one more axis.",
}
