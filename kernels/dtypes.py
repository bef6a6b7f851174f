"""Table of dtypes, with their names in each format. No other module spells them.

NumPy has no bfloat16. A bfloat16 tensor is an array of ``BFLOAT16.numpy``, a one-field record
of its bits, so that its dtype can be told without another library; ``ml_dtypes.bfloat16``
arrays are recognised by name. Kernels tell the two 16-bit floats apart by the signedness of the
integers in ``DType.load``, since Numba has neither type on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)  # compared by identity: a cheap key
class DType:
    """Element type, and its names.

    ``numpy`` is the dtype of its arrays, ``load`` the dtype in which kernels read the same bits,
    ``result`` the dtype of results (never narrower than float32); ``safetensors``, ``v2`` and
    ``npy`` are its names in those formats.
    """

    name: str
    numpy: np.dtype[Any]
    load: np.dtype[Any]
    result: np.dtype[Any]
    safetensors: str
    v2: str
    npy: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes per element."""
        return int(self.numpy.itemsize)


def _row(
    name: str, numpy: Any, load: str, result: str, safetensors: str, v2: str, *npy: str
) -> DType:
    return DType(name, np.dtype(numpy), np.dtype(load), np.dtype(result), safetensors, v2, npy)


FLOATS = (
    _row("float32", "<f4", "<f4", "<f4", "F32", "FP32", "<f4"),
    _row("float64", "<f8", "<f8", "<f8", "F64", "FP64", "<f8"),
    _row("float16", "<f2", "<i2", "<f4", "F16", "FP16", "<f2"),
    # numpy.save writes an ml_dtypes.bfloat16 array's type as two opaque bytes.
    _row("bfloat16", [("bfloat16", "<u2")], "<u2", "<f4", "BF16", "BF16", "<V2", "|V2"),
)
INTEGERS = (
    _row("int64", "<i8", "<i8", "<i8", "I64", "INT64", "<i8"),
    _row("int32", "<i4", "<i4", "<i8", "I32", "INT32", "<i4"),
    _row("int16", "<i2", "<i2", "<i8", "I16", "INT16", "<i2"),
    _row("int8", "<i1", "<i1", "<i8", "I8", "INT8", "|i1"),
    _row("uint64", "<u8", "<i8", "<i8", "U64", "UINT64", "<u8"),
    _row("uint32", "<u4", "<i4", "<i8", "U32", "UINT32", "<u4"),
    _row("uint16", "<u2", "<i2", "<i8", "U16", "UINT16", "<u2"),
    _row("uint8", "|u1", "<i1", "<i8", "U8", "UINT8", "|u1"),
)
FLOAT32, FLOAT64, FLOAT16, BFLOAT16 = FLOATS
ALL = FLOATS + INTEGERS
# In no table, since no kernel reads it; in formats it is a dtype of weights, 0 and 1.
BOOL = _row("bool", "|b1", "|b1", "<f4", "BOOL", "BOOL", "|b1")

BY_NAME = {entry.name: entry for entry in ALL}
BY_SAFETENSORS = {entry.safetensors: entry for entry in ALL}
BY_V2 = {entry.v2: entry for entry in ALL}
BY_NPY = {descr: entry for entry in ALL for descr in entry.npy}
_BY_NUMPY = {entry.numpy: entry for entry in ALL}


def of(array: np.ndarray[Any, Any]) -> DType | None:
    """Row of the table for ``array``, or ``None`` where its dtype is not in the table.

    Big-endian dtypes are not: a kernel reads memory as it is.
    """
    return _BY_NUMPY.get(array.dtype) or (
        BY_NAME.get(array.dtype.name) if array.dtype.name == BFLOAT16.name else None
    )
