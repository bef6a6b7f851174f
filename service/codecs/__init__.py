"""Body formats: bytes to named arrays and back, strictly and without copies where possible."""

from __future__ import annotations

from service.codecs import npz
from service.codecs import safetensors as safetensors_codec
from service.codecs.base import Codec, Encoded, Limits, Message
from service.codecs.json import codec as json_codec

CODECS: tuple[Codec, ...] = (json_codec.CODEC, safetensors_codec.CODEC, npz.CODEC)
BY_MEDIA_TYPE = {media_type: codec for codec in CODECS for media_type in codec.media_types}

__all__ = [
    "BY_MEDIA_TYPE",
    "CODECS",
    "Codec",
    "Encoded",
    "Limits",
    "Message",
]
