"""Three requests: JSON, images in float32, a language model's logits in bfloat16.

    python examples/demo.py http://127.0.0.1:8000

It needs numpy, ml_dtypes and safetensors.
"""

from __future__ import annotations

import json
import sys
from urllib.request import Request, urlopen

import ml_dtypes
import numpy as np
from client import ask

URL = f"{sys.argv[1]}/v1/cross_entropy"


def logits(*shape: int) -> np.ndarray:
    """Numbers from 0 to 10 that look like random ones."""
    return (np.arange(np.prod(shape)) * 7919 % 1009 / 100).astype(np.float32).reshape(shape)


def labels(classes: int, *shape: int) -> np.ndarray:
    """A class for each position."""
    return (np.arange(np.prod(shape)) * 31 % classes).reshape(shape)


rows = [[0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [1, 3, 2, 3, 0], [0, 0, 0, 0, 0]]
body = json.dumps({"logits": rows, "labels": [1, 4, 3, 2]}).encode()
with urlopen(Request(URL, body, {"Content-Type": "application/json"})) as answer:
    print(f"four rows      {json.load(answer)['loss']:.4f}")

images = {"logits": logits(4, 3, 256, 256), "labels": labels(3, 4, 256, 256)}
print(f"images         {ask(URL, images, outputs='loss')['loss']:.4f}")

# Half of float32's bits: the sign, the exponent and 7 bits of the fraction.
halves = (logits(64, 32000).view(np.uint32) >> 16).astype(np.uint16).view(ml_dtypes.bfloat16)
tokens = {"logits": halves, "labels": labels(32000, 64)}
print(f"language model {ask(URL, tokens, outputs='loss')['loss']:.4f}")
