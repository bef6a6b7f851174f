"""Bytes to named arrays and back: one file a format, one interface, strict and without copies."""

from __future__ import annotations

from service.codecs import json_text, npz, safetensors_format
from service.codecs.base import Codec, DecodeError, Encoded, Limits, Message, TooLarge

CODECS: tuple[Codec, ...] = (json_text.CODEC, safetensors_format.CODEC, npz.CODEC)
BY_MEDIA_TYPE = {media_type: codec for codec in CODECS for media_type in codec.media_types}

__all__ = [
    "BY_MEDIA_TYPE",
    "CODECS",
    "Codec",
    "DecodeError",
    "Encoded",
    "Limits",
    "Message",
    "TooLarge",
]
