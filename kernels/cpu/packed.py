"""Operands in memory: kernels take their address, so one parallel loop, and one call from Python,
serves all kernels and all types of operands.

Taking operands apart costs 1 us, as much as the kernel of a small loss. So a plan packs its own
once, and writes the addresses of a call's arrays into them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

from kernels.compiled import kernel
from kernels.plan import Array

# Bytes; operands are some 30 arrays of 56 bytes or more.
SIZE = 4096


class Packed(types.Type):
    """Address of ``operands``, a Numba type, in memory."""

    def __init__(self, operands: Any) -> None:
        self.operands = operands
        super().__init__(f"Packed({operands})")


@register_model(Packed)
class _PackedModel(models.PrimitiveModel):
    def __init__(self, manager: Any, packed: Packed) -> None:
        super().__init__(manager, packed, ir.IntType(64))


@unbox(Packed)
def _unbox(packed: Packed, given: Any, wrapper: Any) -> Any:
    return NativeValue(wrapper.pyapi.long_as_longlong(given))


@intrinsic
def unpacked(typing: Any, packed: Packed) -> Any:
    """Operands at the address ``packed``."""
    operands = packed.operands

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(operands)
        return builder.load(builder.inttoptr(args[0], kind.as_pointer()))

    return operands(packed), codegen


@intrinsic
def _write(typing: Any, operands: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(operands)
        size = context.get_abi_sizeof(kind)
        if size > SIZE:
            raise NotImplementedError(f"operands take {size} bytes, and packed.SIZE is {SIZE}")
        builder.store(args[0], builder.inttoptr(args[1], kind.as_pointer()))
        return context.get_dummy_value()

    return types.void(operands, types.intp), codegen


@kernel
def pack(operands: Any, address: int) -> None:
    """Write ``operands`` to ``SIZE`` bytes of memory at ``address``."""
    _write(operands, address)


class PackedOperands:
    """``operands`` in memory at ``address``, packed by ``code`` (``pack``, compiled for them).

    It keeps their arrays alive.
    """

    def __init__(self, code: Any, operands: Any) -> None:
        self.operands = operands
        self._words = np.zeros(SIZE // 8, np.int64)
        self.address = address_of(self._words)
        code(operands, self.address)

    def slot(self, array: Array) -> int:
        """Address of the word that holds the address of ``array``'s memory."""
        (words,) = np.nonzero(self._words == address_of(array))
        (word,) = words.tolist()  # exactly one
        return int(self.address + 8 * word)


def address_of(array: Array) -> int:
    """Address of ``array``'s memory."""
    address = array.__array_interface__["data"][0]
    assert isinstance(address, int)
    return address
