"""Elements of scores: the worst, the likeliest class, NaN among the logits of a position."""

from __future__ import annotations

import numpy as np

from kernels.tensors import widened
from service.codecs.base import Array

# Bytes of probabilities that are compared at a time: large enough for NumPy's loops.
_PIECE = 2**24


def is_nan(logits: Array, classes: Array, axis: int) -> Array:
    """Tell for each element whether the logit of its class in ``classes`` is NaN.

    For predicted classes that is whether any of its logits is.
    """
    chosen = np.take_along_axis(logits, np.expand_dims(classes, axis), axis)
    return np.isnan(widened(chosen.squeeze(axis)))


def likeliest(by_class: Array) -> Array:
    """Return the index of the largest value along the last axis, the first of equals."""
    rows = by_class if by_class.ndim > 1 else by_class[np.newaxis]
    found = np.empty(rows.shape[:-1], np.int64)
    step = max(1, _PIECE * len(rows) // max(1, rows.nbytes))
    for start in range(0, len(rows), step):
        widened(rows[start : start + step]).argmax(-1, out=found[start : start + step])
    return found.reshape(by_class.shape[:-1])


def worst_places(losses: Array, counted: Array, most: int) -> Array:
    """Return the indices, flattened, of the ``most`` largest losses of the counted elements.

    NaN comes before all, then the largest, and of equals the first position.
    """
    places = np.flatnonzero(counted)
    values = losses.reshape(-1)[places].astype(np.float64)
    nan = np.isnan(values)
    found = places[nan][:most]
    places, values = places[~nan], values[~nan]
    most = max(most - len(found), 0)
    if len(values) > most > 0:
        # A full sort of a million elements would take longer than their loss.
        least = np.partition(values, -most)[-most]
        alike = np.flatnonzero(values == least)[:most]
        kept = np.concatenate([np.flatnonzero(values > least), alike])
        places, values = places[kept], values[kept]
    return np.concatenate([found, places[np.lexsort((places, -values))][:most]])
