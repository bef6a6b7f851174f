"""Route of the divergence of logits from a teacher, and its words for the description."""

from kernels import steps
from kernels.teacher import DENSE, TARGETS
from service.options import KlDivOptions
from service.request.operation import Operation

PATH = "/v1/kl_div"
OPERATION = Operation(
    path=PATH,
    summary="Divergence of logits from those of a teacher",
    description="Kullback-Leibler or Jensen-Shannon divergence, in nats, of the softmax of "
    "`logits`, the student's, from a teacher: of each element, and reduced over all. The teacher "
    "is one of three: `target_logits`; `target_log_probs`; or, sparse, `target_classes` with their "
    "`target_top_log_probs`. In the same pass: the gradient by the logits, whether both sides have "
    "the same likeliest class, and the probabilities of the label, where `labels` come along. Both "
    "tensors are read once. Identical tensors have a divergence of exactly 0.",
    needs=("logits",),
    takes=(*TARGETS, "labels", "mask", "weight"),
    sized=DENSE,
    options=KlDivOptions,
    compute=lambda given: steps.kl_div(**given),
    footprint=lambda given: steps.kl_div_footprint(**given),
)
TENSORS = {
    "target_logits": "The teacher's logits, of the logits' shape, class axis and any float type.",
    "target_log_probs": "The teacher's log-probabilities, as `target_logits`: of each element their"
    " probabilities sum to 1 (`check_probabilities`), and are scaled to do so exactly.",
    "target_classes": "Classes whose log-probabilities a sparse teacher gives, in any order: the"
    " logits' shape without the class axis, then K of them; -1 is padding.",
    "target_top_log_probs": "The log-probabilities of `target_classes`, in their shape; of each"
    " element their probabilities sum to at most 1 (`check_probabilities`).",
}
# Tensors that mean something else for other operations.
OWN = {
    "labels": "Class indices, in the logits' shape without the class axis, for the outputs that are"
    " of the label. Elements of `ignore_index` are left out.",
    "mask": "Which elements count, one value each, in the logits' shape without the class axis: 0"
    " or false leaves the element out. By default all count.",
    "weight": "One weight per element, in the logits' shape without the class axis, finite: scales"
    " the divergence, and counts in the denominator of a mean. By default all are 1.",
}
OUTPUTS = {
    "same_top": "1 where the likeliest class of both sides is the same, the first of several alike,"
    " 0 where it is not, -1 where the element is left out or a number is NaN.",
    "delta_p": "The probability of the label by the logits minus that by the teacher; NaN where a"
    " sparse teacher does not list the label.",
    "label_log_probs": "The log-probability of the label by the logits.",
    "target_label_log_probs": "The log-probability of the label by the teacher; NaN where a sparse"
    " one does not list it.",
}
