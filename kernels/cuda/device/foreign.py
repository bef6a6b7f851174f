"""Arrays of other libraries that lie on the device: DLPack, or ``__cuda_array_interface__``.

Both give an address, a shape, strides and a type, without a copy.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from kernels import dtypes
from kernels.cuda.kinds import SIMULATED, target
from kernels.errors import InvalidInput
from kernels.problem import Array

# Of dlpack.h: the legacy default stream, on which ``resident`` launches; type codes by the name of
# the type; and the types by type code and bits.
_STREAM = 1
_CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4}
_BY_CODE = {(_CODES[row.name.rstrip("0123456789")], 8 * row.size): row for row in dtypes.ALL}


class _Tensor(ctypes.Structure):
    """``DLTensor``, with which ``DLManagedTensor`` begins."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Foreign(NamedTuple):
    """Array in C order at ``address`` on the device; ``owner`` keeps its memory alive."""

    address: int
    shape: tuple[int, ...]
    dtype: dtypes.DType
    owner: Any

    @property
    def stand_in(self) -> Array:
        """Host array of zeros of the same shape and type, with strides of 0: no memory."""
        return np.broadcast_to(np.zeros((), self.dtype.numpy), self.shape)

    def view(self, dtype: Any) -> Any:
        """Device array over the same memory: one-dimensional, its bits as ``dtype``."""
        size = math.prod(self.shape)
        if size == 0:
            return cuda.device_array(0, dtype)
        interface = {
            "version": 3,
            "shape": (size,),
            "typestr": np.dtype(dtype).str,
            "data": (self.address, False),
            "strides": None,
        }
        return target.adopted(interface, self.owner)

    def to_host(self) -> Array:
        """Copy to the host, with the same shape and type."""
        flat: Array = self.view(self.dtype.load).copy_to_host()
        return flat.view(self.dtype.numpy).reshape(self.shape)


def adopt(array: Any, name: str) -> Foreign:
    """Describe ``array``, the argument ``name``.

    Raises ``InvalidInput`` for another type than ``dtypes.ALL``, or another order than C.
    """
    try:
        found = (_by_dlpack if hasattr(array, "__dlpack__") else _by_interface)(array)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise InvalidInput(f"{name} on the GPU cannot be read: {error}", field=name) from error
    address, shape, strides, dtype, owner = found
    if dtype is None:
        raise InvalidInput(f"{name} on the GPU are of a type that is not taken", field=name)
    if math.prod(shape) and strides is not None and not _in_c_order(shape, strides):
        raise InvalidInput(
            f"{name} on the GPU must be contiguous, in C order: pass {name}.contiguous(), or its "
            "like",
            field=name,
        )
    return Foreign(address, shape, dtype, owner)


def _in_c_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """True for C order by strides in elements; axes of size 1 may have any stride."""
    step = 1
    for size, stride in reversed(list(zip(shape, strides, strict=True))):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


def _by_dlpack(array: Any) -> Any:
    # The capsule stays unconsumed, and frees what it holds when it goes.
    capsule = array.__dlpack__(stream=_STREAM)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(pointer(capsule, b"dltensor"))
    axes = range(tensor.ndim)
    return (
        (tensor.data or 0) + tensor.byte_offset,
        tuple(tensor.shape[axis] for axis in axes),
        tuple(tensor.strides[axis] for axis in axes) if tensor.strides else None,
        _BY_CODE.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None,
        (capsule, array),
    )


def _by_interface(array: Any) -> Any:
    interface = array.__cuda_array_interface__
    dtype = dtypes.of(np.empty(0, interface["typestr"]))
    strides, stream = interface.get("strides"), interface.get("stream")
    if stream is not None and not SIMULATED:
        cuda.external_stream(stream).synchronize()
    if strides is not None and dtype is not None:
        strides = tuple(step // dtype.size for step in strides)
    return interface["data"][0], tuple(interface["shape"]), strides, dtype, array
