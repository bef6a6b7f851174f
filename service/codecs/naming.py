"""Names that clients give to tensors and options, and those that they are known by here."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

# Longer names are no slip of the keyboard, and comparing takes time that grows with them.
_LONGEST = 40
_SIMILAR = 0.75  # of difflib's ratio: a letter more, less or other in a name of five
# What other libraries call them; "y" and the like are too short for difflib.
_SYNONYMS = {
    "labels": ("target", "targets", "y", "y_true", "truth", "classes", "soft_labels"),
    "logits": ("input", "inputs", "pred", "preds", "predictions", "y_pred", "scores", "x"),
    "log_probs": ("logprobs", "log_probabilities", "log_softmax", "input", "inputs"),
    "weight": ("class_weight", "class_weights"),
    "sample_weight": ("mask", "loss_mask", "attention_mask", "loss_weight", "example_weight"),
    "class_axis": ("axis", "dim", "class_dim"),
    "ignore_index": ("pad_token_id", "padding_idx", "ignore_label", "ignore_id"),
    "label_smoothing": ("smoothing", "label_smoothing_factor", "epsilon"),
    "softcap": ("logit_softcap", "final_logit_softcapping", "logit_softcapping"),
    "temperature": ("t", "tau"),
    "z_loss": ("z_loss_multiplier", "lse_square_scale", "z_loss_weight"),
}


def meant(name: str, known: Collection[str]) -> str | None:
    """The one of ``known`` that ``name`` probably stands for."""
    if len(name) > _LONGEST:
        return None
    plain = name.lower().replace("-", "_").replace(" ", "_")
    for own, others in _SYNONYMS.items():
        if own in known and plain in (own, *others):
            return own
    return next(iter(get_close_matches(plain, sorted(known), 1, _SIMILAR)), None)


def advice(name: str, known: Collection[str]) -> str:
    """A question for an error that says that ``name`` is unknown, or nothing."""
    own = meant(name, known)
    return "" if own is None else f"; is it {own}?"
