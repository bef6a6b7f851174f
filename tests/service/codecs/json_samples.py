"""What the tests of the JSON codec share: one tensor's text to an array, or to an error."""

from __future__ import annotations

from functools import partial

from service.codecs import json_text
from service.codecs.base import DecodeError
from tests.service.codecs.samples import LIMITS, NAMES, Array, refusal


def decoded(text: str, dtype: str = "float64", name: str = "logits") -> Array:
    body = f'{{"dtype":"{dtype}","{name}":{text}}}'.encode()
    return json_text.decode(memoryview(body), NAMES, LIMITS).tensors[name]


def refused(text: str, dtype: str = "float64", name: str = "logits") -> DecodeError:
    return refusal(partial(decoded, text, dtype, name))
