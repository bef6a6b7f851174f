"""Warm-up: kernels and codecs are compiled, and codecs checked, before the first request."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.compiling import Job, Told
from kernels.dtypes import FLOATS, DType
from kernels.warm import compile_common
from service.codecs import CODECS, Encoded, Limits
from service.codecs.base import TENSORS
from service.codecs.json import scanner

_LIMITS = Limits(decoded_bytes=2**20)


def warm_up(offered: Sequence[DType] = FLOATS, told: Told | None = None) -> list[str]:
    """Compile, or load, the kernels for the dtypes ``offered`` and the JSON reader.

    Returns the names of what was in no cache; ``told`` is called with the progress of compiling.
    Raises ``RuntimeError`` if a codec does not return the tensors that it was given, and whatever
    the compilation raises.
    """
    reader = Job("the reader of JSON", scanner.__name__, "compiled")
    missing = compile_common(offered, [reader], told)
    tensors = {
        "logits": np.array([[0.5, -np.inf], [1e-9, 3.0]], np.float32),
        "labels": np.array([0, 1]),
    }
    for codec in CODECS:
        encoded = codec.encode(tensors)
        assert not isinstance(encoded, Encoded)
        message = codec.decode(memoryview(encoded), TENSORS, _LIMITS)
        for name, array in tensors.items():
            if not np.array_equal(message.tensors[name], array):
                raise RuntimeError(f"{codec.name} does not return the {name} that it was given")
    return missing
