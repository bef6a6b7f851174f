"""Words of the description for likeliest and chosen classes, and weights of positive labels."""

TENSORS = {
    "pos_weight": "Of `/v1/binary_cross_entropy`: weights of positive labels, finite, of a shape"
    " that broadcasts to the logits': `(C)` is one for each place on the last axis.",
    "chosen": "Classes whose log-probabilities `chosen_log_probs` has: `(K)`, the same ones for all"
    " elements, or the labels' shape and K. Any integer type, each from 0 to C - 1.",
}
OUTPUTS = {
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
