"""NumPy's arrays as Python objects, read by compiled code.

Python takes 0.3 us for the dtypes, shapes and flags of two arrays, and 0.8 us for the address of
one's memory; compiled code reads all of it in 5 ns, from the fields that NumPy's C API gives
(``PyArrayObject_fields``), which lie right after Python's object head.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

from kernels.compiled import inlined
from kernels.plan import Array

# Offsets in bytes: an object's type ends its head; then an array has the address of its memory, the
# number of its dimensions (an int), the addresses of their sizes, of the strides and of the owner
# of its memory, its dtype, and its flags (an int). A tuple ends with the addresses of its items.
_TYPE = object.__basicsize__ - 8
_MEMORY = object.__basicsize__
_RANK, _SIZES, _DTYPE, _FLAGS = _MEMORY + 8, _MEMORY + 16, _MEMORY + 40, _MEMORY + 48
_ITEMS = tuple.__basicsize__
_INT = 2**32 - 1
# Flags NPY_ARRAY_C_CONTIGUOUS and NPY_ARRAY_ALIGNED.
_IN_ORDER = 0x0101


class _Object(types.Type):
    """A Python object, of which compiled code gets the address alone: it is neither counted nor
    taken apart.
    """

    def __init__(self) -> None:
        super().__init__("Object")


OBJECT = _Object()


@register_model(_Object)
class _ObjectModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.IntType(64))


@unbox(_Object)
def _unbox(kind: Any, given: Any, wrapper: Any) -> Any:
    return NativeValue(wrapper.builder.ptrtoint(given, ir.IntType(64)))


@intrinsic
def address(typing: Any, thing: Any) -> Any:
    """Address of an ``OBJECT``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0]

    return types.intp(thing), codegen


@intrinsic
def _word(typing: Any, at: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()))

    return types.intp(types.intp), codegen


@intrinsic
def get(typing: Any, at: Any, like: Any) -> Any:
    """Number in the memory ``at`` an address, of the type of ``like``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], args[1].type.as_pointer()))

    return like(types.intp, like), codegen


@intrinsic
def put(typing: Any, at: Any, value: Any) -> Any:
    """Write ``value``, a number, to the memory ``at`` an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], args[1].type.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp, value), codegen


@inlined
def memory_of(array: int) -> int:
    """Address of the memory of the array at the address ``array``."""
    return _word(array + _MEMORY)


@inlined
def item_of(things: int, index: int) -> int:
    """Address of the object with this ``index`` in the tuple at the address ``things``."""
    return _word(things + _ITEMS + 8 * index)


class Layout(NamedTuple):
    """An array's type and dtype, each as ``id`` gives it, and its shape, an array of int64."""

    kind: int
    dtype: int
    shape: Any


def layout_of(array: Array) -> Layout:
    """``Layout`` of ``array``, whose dtype has to be kept alive."""
    return Layout(id(type(array)), id(array.dtype), np.array(array.shape, np.int64))


@inlined
def lies_as(array: int, layout: Any) -> bool:
    """True for the address of an array of ``layout``, C-contiguous and aligned.

    It may be the address of any Python object.
    """
    if _word(array + _TYPE) != layout.kind or _word(array + _DTYPE) != layout.dtype:
        return False
    if _word(array + _RANK) & _INT != layout.shape.size:
        return False
    sizes = _word(array + _SIZES)
    for i in range(layout.shape.size):
        if _word(sizes + 8 * i) != layout.shape[i]:
            return False
    return _word(array + _FLAGS) & _IN_ORDER == _IN_ORDER


def _known_fields() -> bool:
    """True where the fields of an array and of a tuple lie as they are read here."""
    array = np.zeros((2, 3), np.float32)[1:]
    pair = None, array
    word = ctypes.c_int64.from_address
    return (
        word(id(array) + _TYPE).value == id(np.ndarray)
        and word(id(array) + _MEMORY).value == array.__array_interface__["data"][0]
        and word(id(array) + _RANK).value & _INT == 2
        and [word(word(id(array) + _SIZES).value + at).value for at in (0, 8)] == [1, 3]
        and word(id(array) + _DTYPE).value == id(array.dtype)
        and word(id(array) + _FLAGS).value & _INT == array.flags.num
        and word(id(pair) + _ITEMS + 8).value == id(array)
    )


KNOWN_FIELDS = _known_fields()
