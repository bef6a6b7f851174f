"""Nested values as JSON, with texts for the floats that JSON cannot write."""

from __future__ import annotations

import math
from typing import Any

import orjson


def written(value: Any) -> bytes:
    """Write ``value``, of dicts, lists, texts, numbers and None, as JSON."""
    text = orjson.dumps(value)
    if b"null" not in text:  # else it may be for NaN; the walk takes ten times as long as writing
        return text
    if isinstance(value, dict):
        parts = {name: orjson.Fragment(written(item)) for name, item in value.items()}
        return orjson.dumps(parts)
    return orjson.dumps(speakable(value))


def speakable(value: Any) -> Any:
    """Replace the floats that are not finite by "NaN", "Infinity" and "-Infinity"."""
    if isinstance(value, dict):
        return {name: speakable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [speakable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
