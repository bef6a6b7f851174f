"""Labels of sparse teachers: K classes of each element, as class probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels import dtypes
from kernels.tensors import widened
from service.bulk.formats.base import Tensor
from service.codecs.base import Array
from service.errors import DecodeError

# Names of what a teacher's file has in the labels' place, as `/v1/kl_div` calls them.
CLASSES, LOG_PROBS = "target_classes", "target_top_log_probs"


class Teacher:
    """Labels that are the probabilities of a sparse teacher, float32, and 0 where it has none.

    Classes are the logits' last axis. Class -1 is padding.
    """

    row = dtypes.FLOAT32

    def __init__(self, classes: Tensor, log_probs: Tensor, logits: Tensor) -> None:
        if classes.shape != log_probs.shape or classes.shape[:-1] != logits.shape[:-1]:
            raise DecodeError(
                f"{CLASSES} is of shape {list(classes.shape)} and {LOG_PROBS} of "
                f"{list(log_probs.shape)}: with logits of {list(logits.shape)} both are of "
                f"{[*logits.shape[:-1], 'K']}",
                where=CLASSES,
            )
        if classes.row not in dtypes.INTEGERS or log_probs.row not in dtypes.FLOATS:
            raise DecodeError(
                f"{CLASSES} is of {classes.row.name} and {LOG_PROBS} of {log_probs.row.name}: "
                "classes are integers, log-probabilities are not",
                where=CLASSES,
            )
        self.shape: tuple[int, ...] = logits.shape
        self.starts: Sequence[int] = classes.starts
        self._classes, self._log_probs = classes, log_probs

    def read(self, first: int, stop: int) -> Array:
        index = self._classes.read(first, stop).astype(np.int64)
        log_probs = widened(self._log_probs.read(first, stop))
        padding = index == -1
        wrong = ~padding & ((index < 0) | (index >= self.shape[-1]))
        if wrong.any():
            at = tuple(int(place[0]) for place in np.nonzero(wrong))
            raise DecodeError(
                f"{CLASSES}, row {first + at[0]:,}: class {int(index[at])} is none of the "
                f"{self.shape[-1]:,} of the logits, from 0 on, and not -1, which is padding",
                where=CLASSES,
            )
        out = np.zeros((stop - first, *self.shape[1:]), np.float32)
        # Padding may name a class that is listed as well, so it adds nothing in place of a value.
        kept = np.nonzero(~padding)
        np.add.at(out, (*kept[:-1], index[kept]), np.exp(log_probs[kept]))
        return out
