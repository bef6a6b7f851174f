"""Names that clients give to tensors and options, and the known names that they stand for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from itertools import combinations

# Characters of a name that is compared: a longer one is no slip, and comparing takes longer.
_LONGEST = 40
_SIMILAR = 0.75  # ratio of difflib: a letter more, less or other in a name of five
# Names in other libraries; "y" and the like are too short for difflib.
_SYNONYMS = {
    "labels": ("target", "targets", "y", "y_true", "truth", "classes", "soft_labels"),
    "logits": ("input", "inputs", "pred", "preds", "predictions", "y_pred", "scores", "x"),
    "log_probs": ("logprobs", "log_probabilities", "log_softmax", "input", "inputs"),
    "target_logits": ("teacher_logits", "targets", "target", "reference_logits"),
    "target_log_probs": ("teacher_log_probs", "teacher_logprobs", "target_logprobs"),
    "target_classes": ("target_indices", "teacher_indices", "target_token_ids", "top_classes"),
    "target_top_log_probs": ("teacher_top_log_probs", "target_topk_log_probs", "top_log_probs"),
    "weight": ("class_weight", "class_weights"),
    "sample_weight": ("loss_weight", "example_weight"),
    "mask": ("loss_mask", "attention_mask", "label_mask", "padding_mask"),
    "segments": ("segment_ids", "sequence_ids", "document_ids"),
    "pos_weight": ("positive_weight", "pos_weights"),
    "chosen": ("token_ids", "class_ids", "choices"),
    "top_k": ("topk", "k"),
    "focal": ("gamma", "focal_gamma", "focal_loss"),
    "class_axis": ("axis", "dim", "class_dim"),
    "ignore_index": ("pad_token_id", "padding_idx", "ignore_label", "ignore_id"),
    "label_smoothing": ("smoothing", "label_smoothing_factor", "epsilon"),
    "softcap": ("logit_softcap", "final_logit_softcapping", "logit_softcapping"),
    "temperature": ("t", "tau"),
    "z_loss": ("z_loss_multiplier", "lse_square_scale", "z_loss_weight"),
}
_SEPARATORS = re.compile(r"[\W_]+")
_SHORTEST = 5  # letters of a name for each of its letters that may be missing


def meant(name: str, known: Collection[str]) -> str | None:
    """Return the one of ``known`` that ``name`` probably stands for, synonyms included.

    For a name that is refused anyway: it guesses freely.
    """
    if len(name) > _LONGEST:
        return None
    plain = name.lower().replace("-", "_").replace(" ", "_")
    for own, others in _SYNONYMS.items():
        if own in known and plain in (own, *others):
            return own
    return next(iter(get_close_matches(plain, sorted(known), 1, _SIMILAR)), None)


def advice(name: str, known: Collection[str]) -> str:
    """Return a question for the error that refuses ``name``, or nothing."""
    own = meant(name, known)
    return "" if own is None else f"; is it {own}?"


class Spellings:
    """Index of known ``names`` by texts that are nearly one of them.

    Nearly is in another case or with other separators; with one letter more, less, changed or
    swapped; with a letter less for every ``_SHORTEST`` of the name. It decides whether a note in
    foreign metadata is refused as a misspelled option, so it must not guess.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_letters: Mapping[str, str] = {_letters(name): name for name in names}
        self._by_part: Mapping[str, str] = {
            part: name for name in names for part in _shortened(name, len(name) // _SHORTEST)
        }
        self._longest = max(map(len, names), default=0) + 1

    def meant(self, text: str) -> str | None:
        """Return the known name that ``text`` nearly is, if there is one."""
        name = self._by_letters.get(_letters(text[: 2 * self._longest]))
        if name is not None or len(text) > self._longest:
            return name
        # Two texts are one edit apart if they are equal after a letter less in each.
        text = text.lower()
        parts = (text, *(text[:at] + text[at + 1 :] for at in range(len(text))))
        return next((self._by_part[part] for part in parts if part in self._by_part), None)


def _letters(text: str) -> str:
    return _SEPARATORS.sub("", text).lower()


def _shortened(text: str, most: int) -> Iterable[str]:
    """Yield ``text`` without up to ``most`` of its characters, the least shortened first."""
    for fewer in range(most + 1):
        for left in combinations(text, len(text) - fewer):
            yield "".join(left)
