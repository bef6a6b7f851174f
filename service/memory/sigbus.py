"""Handler of SIGBUS, which reading shared memory raises once its owner has shrunk it.

Without a handler the signal ends the process. A client may shrink its region at any time, even
while a kernel reads it. Only memfds can be sealed against that; and to copy the region first, even
in pieces that stay in cache, takes two to six times as long as the computation (256 MiB: 9 ms in
place, 25 ms of one core to read it in pieces, 64 ms with a copy first). So the handler does what
libwayland does with its clients' buffers (wayland-shm.c): it replaces the whole mapping with zeros
and sets a flag, which the reader of the mapping checks afterwards.

The handler is machine code from Numba. It may interrupt any thread anywhere, so it takes no lock,
allocates nothing and calls no Python: it makes two system calls.
"""

from __future__ import annotations

import ctypes
import mmap
import signal
import threading
import weakref
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc, types
from numba.extending import intrinsic

MOST = 1024  # mappings at a time

# First address, end address and lost flag of each mapping. The handler holds this array's address,
# so the array is never replaced.
_FIRST, _END, _LOST = range(3)
_WIDTH = 3
_mappings = np.zeros((MOST, _WIDTH), np.int64)
_lock = threading.Lock()

_ADDRESS = 2  # in siginfo_t, as 64-bit words
_SA_SIGINFO = 4
_MAP_FIXED = 0x10
_SIGNAL = int(signal.SIGBUS)
_WORD = ctypes.c_ssize_t


class _Action(ctypes.Structure):
    """struct sigaction of glibc and musl on Linux; other systems offer no regions."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint64 * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class TooManyMappings(Exception):
    """Raised where ``MOST`` mappings are watched already."""


class Watched:
    """Protection of a mapping against SIGBUS, for as long as ``memory`` lives.

    Raises ``TooManyMappings``.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        install()
        array = np.frombuffer(memory, np.uint8)
        first = array.ctypes.data
        with _lock:
            free = np.flatnonzero(_mappings[:, _END] == 0)
            if not free.size:
                raise TooManyMappings
            self._row = _mappings[free[0]]
            # The end is written last: the handler skips rows whose end is zero.
            self._row[_LOST] = 0
            self._row[_FIRST] = first
            self._row[_END] = first + array.size
        weakref.finalize(memory, _forget, self._row)

    @property
    def lost(self) -> bool:
        """Flag: a read has found pages missing, and the mapping holds zeros from then on."""
        return bool(self._row[_LOST])


def _forget(row: np.ndarray[Any, Any]) -> None:
    # No lock: a finalizer may run in the thread that holds it.
    row[_END] = 0


@cache
def install() -> Any:
    """Install the handler once, in half a second; returns objects that must stay alive."""
    before, ours = _Action(), _Action()
    handler = _compiled(ctypes.addressof(before))
    ours.handler, ours.flags = handler.address, _SA_SIGINFO
    if ctypes.CDLL(None).sigaction(_SIGNAL, ctypes.byref(ours), ctypes.byref(before)):
        raise OSError("the handler of SIGBUS cannot be set")
    return handler, before


def _compiled(before: int) -> Any:
    """Compile the handler; ``before``: address of the previous ``sigaction``."""
    table = _mappings.ctypes.data
    replace = _foreign("mmap", _WORD, _WORD, *[ctypes.c_int] * 3, _WORD)
    restore = _foreign("sigaction", ctypes.c_int, _WORD, _WORD)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED

    @cfunc(types.void(types.int32, types.CPointer(types.int64), types.int64), _nrt=False)
    def handler(number: Any, info: Any, context: Any) -> None:
        address = info[_ADDRESS]
        words = _words_at(table)
        for row in range(0, MOST * _WIDTH, _WIDTH):
            first, end = words[row + _FIRST], words[row + _END]
            if first <= address < end:
                words[row + _LOST] = 1
                if replace(first, end - first, protection, flags, -1, 0) == first:
                    return
        # No watched mapping, or mmap failed: restore the previous action, and the fault repeats.
        restore(_SIGNAL, before, 0)

    return handler


def _foreign(name: str, *arguments: Any) -> Any:
    function = ctypes.CDLL(None)[name]
    function.restype, function.argtypes = _WORD, arguments
    return function


@intrinsic
def _words_at(typing: Any, address: Any) -> Any:
    """Pointer to 64-bit words at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(64).as_pointer())

    return types.CPointer(types.int64)(types.int64), codegen
