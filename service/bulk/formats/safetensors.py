"""Shards in .safetensors files: tensors as they lie, mapped by rows."""

from __future__ import annotations

from collections.abc import Mapping

from kernels import dtypes
from service.bulk import files
from service.bulk.formats.base import OWN, Flat, Held
from service.codecs.base import BOOLEAN
from service.codecs.safetensors import CODEC, data_start

_LENGTH_BYTES = 8


def opened(location: str, wanted: Mapping[str, str]) -> Held:
    """Open the file at ``location``, whose metadata are options."""
    source = files.opened(location)
    try:
        begun = bytes(source.read(0, min(_LENGTH_BYTES, source.size)))
        body = source.outline((0, data_start(begun) or 0))
        boolean = frozenset(name for ours, name in wanted.items() if ours in BOOLEAN)
        limits = OWN._replace(boolean=boolean)
        message = CODEC.decode(body, frozenset(wanted.values()), limits)
        tensors = {}
        for ours, name in wanted.items():
            if (view := message.tensors.get(name)) is not None:
                at = files.offset(body, view)
                tensors[ours] = Flat(source, at, dtypes.of(view) or dtypes.BOOL, view.shape)
    except BaseException:
        source.close()
        raise
    return Held(tensors, message.others, message.options, source.close)
