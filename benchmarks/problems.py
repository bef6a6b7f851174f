"""Problems that are measured: shapes and dtypes, their numbers, and their losses in float64."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kernels.dtypes import BFLOAT16, FLOAT16, FLOAT32, DType

Array = np.ndarray[Any, Any]

# Largest error of a loss against float64, relative to max(1, loss), and of a gradient, relative to
# 1 / N. Peers answer in the dtype of the logits: float16 rounds by up to 5e-4, bfloat16 by 4e-3.
TOLERANCE = {FLOAT32: 1e-5, FLOAT16: 1e-3, BFLOAT16: 8e-3}
_CHUNK = 2**22  # elements in float64 at a time
_QUICK = 8  # one in so many rows, with --quick


@dataclass(frozen=True)
class Case:
    """Logits of ``shape`` (N, C, d1, ...); ``wants`` is "loss", "gradient" (loss and gradient),
    "divergence", KL(targets || logits), whose targets are as large as the logits, or a name of
    ``kernel.workloads`` or ``kernel.outputs``.

    A ``latency`` is reported in microseconds, not in GB/s.
    """

    shape: tuple[int, ...]
    dtype: DType = FLOAT32
    wants: str = "loss"
    latency: bool = False

    @property
    def name(self) -> str:
        """Name in tables and for ``--case``."""
        size = "x".join(map(str, self.shape))
        suffix = {"loss": "", "divergence": " kl_div"}.get(self.wants, f" +{self.wants}")
        return f"{size} {self.dtype.name}{suffix}"

    @property
    def nbytes(self) -> int:
        """Bytes of logits, and of a divergence's targets."""
        return math.prod(self.shape) * self.dtype.size * (2 if self.wants == "divergence" else 1)

    def smaller(self) -> Case:
        """The same case with fewer rows."""
        rows = self.shape[0] if self.latency else max(1, self.shape[0] // _QUICK)
        return dataclasses.replace(self, shape=(rows, *self.shape[1:]))


LARGE = Case((2048, 32000))
LARGE_BFLOAT16 = Case((2048, 32000), BFLOAT16)
THOUSAND = Case((2048, 1000))
THOUSAND_BFLOAT16 = Case((2048, 1000), BFLOAT16)
LONGEST = Case((2, 262144))
LONG_ROWS = (
    LARGE,
    LARGE_BFLOAT16,
    THOUSAND,
    THOUSAND_BFLOAT16,
    Case((512, 128256)),
    LONGEST,
)
TEN = Case((1_000_000, 10))
HUNDRED = Case((500_000, 100))
STRIDED = Case((8, 19, 512, 256))
GRADIENT = Case((2048, 32000), wants="gradient")
PLANES_IN_CACHE = Case((4, 3, 256, 256))
SIXTY_FOUR = Case((64, 1000), latency=True)
MARGINS = (
    Case((2048, 32000), wants="margin"),
    Case((2048, 32000), BFLOAT16, wants="margin"),
)
TOPS = (
    Case((2048, 32000), wants="top 20"),
    Case((2048, 32000), BFLOAT16, wants="top 20"),
)
DIVERGENCES = (
    Case((2048, 32000), wants="divergence"),
    Case((2048, 32000), BFLOAT16, wants="divergence"),
)
SEQUENCES = tuple(Case((2048, 32000), dtype, wants="sequences") for dtype in (FLOAT32, BFLOAT16))
TINY = Case((4, 5), latency=True)
CASES = (
    *LONG_ROWS,
    Case((2048, 32000), FLOAT16),
    TEN,
    HUNDRED,
    STRIDED,
    PLANES_IN_CACHE,
    GRADIENT,
    SIXTY_FOUR,
    *MARGINS,
    *TOPS,
    *DIVERGENCES,
    *SEQUENCES,
    TINY,
)


@dataclass(frozen=True)
class Data:
    """Logits (``case.dtype.numpy``) and labels (int64) of a case, and its losses in float64."""

    case: Case
    logits: Array
    labels: Array

    @cached_property
    def targets(self) -> Array:
        """Logits of a teacher: these and normal noise of deviation 1/2, of the same dtype."""
        noise = np.random.default_rng(1).standard_normal(self.case.shape, np.float32)
        noise *= 0.5
        noise += _as_float32(self.logits, self.case.dtype)
        return _rounded(noise, self.case.dtype)

    @cached_property
    def per_element(self) -> Array:
        """Loss or divergence of each position in float64, of the labels' shape."""
        if self.case.wants == "divergence":
            return self._divergences()
        losses = np.empty(self.labels.shape)
        for rows in self._chunks():
            x, label = self._wide(self.logits[rows]), np.expand_dims(self.labels[rows], 1)
            largest = x.max(1, keepdims=True)
            sums = np.log(np.exp(x - largest).sum(1)) + largest[:, 0]
            losses[rows] = sums - np.take_along_axis(x, label, 1)[:, 0]
        return losses

    def loss_error(self, loss: Any) -> float:
        """Error of the mean loss, relative to max(1, mean loss)."""
        exact = float(self.per_element.mean())
        return abs(float(loss) - exact) / max(1.0, abs(exact))

    def per_element_error(self, losses: Array) -> float:
        """Largest error among the losses, relative to max(1, loss)."""
        exact = self.per_element
        return float((np.abs(losses - exact) / np.maximum(1.0, np.abs(exact))).max())

    def gradient_error(self, gradient: Array) -> float:
        """Largest error in the gradient of the mean, times N."""
        worst = 0.0
        for rows in self._chunks():
            x, label = self._wide(self.logits[rows]), np.expand_dims(self.labels[rows], 1)
            exact = np.exp(x - x.max(1, keepdims=True))
            exact /= exact.sum(1, keepdims=True)
            np.put_along_axis(exact, label, np.take_along_axis(exact, label, 1) - 1.0, 1)
            off = np.abs(gradient[rows].astype(np.float64) * self.labels.size - exact)
            worst = max(worst, float(off.max()))
        return worst

    def _chunks(self) -> Iterator[slice]:
        count, *rest = self.logits.shape
        step = max(1, _CHUNK // math.prod(rest))
        return (slice(first, first + step) for first in range(0, count, step))

    def _wide(self, part: Array) -> Array:
        return _as_float32(part, self.case.dtype).astype(np.float64)

    def _divergences(self) -> Array:
        found = np.empty(self.labels.shape)
        for rows in self._chunks():
            logs = []
            for tensor in (self.targets, self.logits):
                x = self._wide(tensor[rows])
                x -= x.max(1, keepdims=True)
                logs.append(x - np.log(np.exp(x).sum(1, keepdims=True)))
            found[rows] = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(1)
        return found


def _as_float32(part: Array, dtype: DType) -> Array:
    """``part`` as float32, if it is bfloat16."""
    return (part.view("<u2").astype("<u4") << 16).view("<f4") if dtype is BFLOAT16 else part


def _rounded(numbers: Array, dtype: DType) -> Array:
    """Float32 numbers as ``dtype``; bfloat16 by cutting them off."""
    if dtype is BFLOAT16:
        return (numbers.view("<u4") >> 16).astype("<u2").view(BFLOAT16.numpy)
    return numbers.astype(dtype.numpy, copy=False)


def data_for(case: Case) -> Data:
    """Make normal logits of deviation 3; every other label is the likeliest class.

    So a loss that mixes up labels has an error above any tolerance, even in its mean.
    """
    random = np.random.default_rng(0)
    numbers = random.standard_normal(case.shape, np.float32)
    numbers *= 3.0
    labels = random.integers(0, case.shape[1], (case.shape[0], *case.shape[2:]))
    likeliest = numbers.argmax(1)
    even = np.arange(labels.size).reshape(labels.shape) % 2 == 0
    labels[even] = likeliest[even]
    return Data(case, _rounded(numbers, case.dtype), labels)
