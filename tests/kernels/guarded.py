"""A program: calls the kernels on arrays that begin or end at a page which faults when touched.

Inputs lie on pages that cannot be written. Outputs and scratch that NumPy allocates meanwhile
come from an allocator that places them the same way, so a write too far is a SIGSEGV as well.
``python -m tests.kernels.guarded sweep`` prints how many arrays it placed.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import mmap
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import kernels
from kernels import dtypes
from tests import zoo
from tests.oracle import Array

PAGE = mmap.PAGESIZE
PROT_NONE = 0
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

# Around the widths of vectors, cache blocks and unrolled loops.
CLASSES = (
    1,
    2,
    3,
    5,
    7,
    8,
    9,
    15,
    16,
    17,
    31,
    33,
    63,
    64,
    65,
    127,
    129,
    255,
    257,
    1000,
    1025,
    4097,
)
INNER = (1, 2, 3, 8, 17, 65)


class Placer:
    """Memory whose last (or first) byte is next to a page that cannot be touched."""

    def __init__(self) -> None:
        self.at_end = True
        self.placed = 0
        self.regions: dict[int, tuple[int, int, int]] = {}  # address: base, mapped, asked for

    def allocate(self, size: int) -> int:
        body = -(-max(size, 1) // PAGE) * PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        base = LIBC.mmap(None, body + 2 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        for guard in (base, base + PAGE + body):
            if LIBC.mprotect(guard, PAGE, PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect")
        address = base + PAGE + (body - size if self.at_end else 0)
        self.regions[address] = (base, body + 2 * PAGE, size)
        self.placed += 1
        return int(address)

    def free(self, address: int) -> None:
        base, mapped, _ = self.regions.pop(address)
        LIBC.munmap(base, mapped)

    def grow(self, address: int, size: int) -> int:
        new = self.allocate(size)
        ctypes.memmove(new, address, min(size, self.regions[address][2]))
        self.free(address)
        return new


PLACER = Placer()

_P, _N = ctypes.c_void_p, ctypes.c_size_t


class _Handler(ctypes.Structure):
    """NumPy's PyDataMem_Handler (NEP 49), for which there is no Python interface."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("ctx", _P),
        ("malloc", ctypes.CFUNCTYPE(_P, _P, _N)),
        ("calloc", ctypes.CFUNCTYPE(_P, _P, _N, _N)),
        ("realloc", ctypes.CFUNCTYPE(_P, _P, _P, _N)),
        ("free", ctypes.CFUNCTYPE(None, _P, _P, _N)),
    )


_TYPES: dict[str, Any] = dict(_Handler._fields_)
_HANDLER = _Handler(
    b"guarded",
    1,
    None,
    _TYPES["malloc"](lambda _, size: PLACER.allocate(size)),
    _TYPES["calloc"](lambda _, count, size: PLACER.allocate(count * size)),
    _TYPES["realloc"](lambda _, address, size: PLACER.grow(address, size)),
    _TYPES["free"](lambda _, address, size: PLACER.free(address)),
)


def _set_handler() -> Callable[[Any], Any]:
    """PyDataMem_SetHandler: entry 304 of NumPy's C API, a number that its ABI fixes."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = _P, [ctypes.py_object, ctypes.c_char_p]
    table = get(np._core._multiarray_umath._ARRAY_API, None)  # type: ignore[attr-defined]
    address = ctypes.cast(table, ctypes.POINTER(_P))[304]
    assert address is not None
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(address)


@contextmanager
def guarded_allocations() -> Iterator[None]:
    """While inside, whatever NumPy allocates for an array's data lies at a guard page."""
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [_P, ctypes.c_char_p, _P]
    set_handler = _set_handler()
    before = set_handler(new(ctypes.addressof(_HANDLER), b"mem_handler", None))
    try:
        yield
    finally:
        set_handler(before)


def place(array: Array) -> Array:
    """A copy, in C order, on pages that cannot be written."""
    with guarded_allocations():
        copy = np.empty(array.shape, array.dtype)
    copy[...] = array
    address = copy.ctypes.data
    start = address // PAGE * PAGE
    LIBC.mprotect(start, -(-(address + max(copy.nbytes, 1) - start) // PAGE) * PAGE, mmap.PROT_READ)
    return copy


def calls(logits: Array, labels: Array, soft: Array, weight: Array, axis: int) -> None:
    """Every function, and what makes them take different ways."""
    kernels.log_softmax(logits, class_axis=axis)
    kernels.softmax(logits, class_axis=axis)
    kernels.cross_entropy(logits, labels, class_axis=axis)
    kernels.cross_entropy(
        logits, labels, class_axis=axis, weight=weight, label_smoothing=0.1, reduction="none"
    )
    kernels.cross_entropy(logits, soft, class_axis=axis, weight=weight, check_probabilities=False)
    kernels.nll_loss(logits, labels, class_axis=axis, weight=weight, reduction="none")
    if dtypes.of(logits) is not dtypes.FLOAT16:  # three types are enough, and compiled elsewhere
        outputs = ("loss", "gradient", "same_top")
        for direction in ("forward", "jsd"):
            kernels.kl_div(logits, soft, class_axis=axis, direction=direction, outputs=outputs)
    if logits.itemsize > 2:
        kernels.kl_div(
            logits,
            target_classes=labels[..., None],
            target_top_log_probs=np.full((*labels.shape, 1), -0.5),
            class_axis=axis,
            outputs=("loss", "gradient", "same_top"),
        )


def refused(logits: Array, labels: Array, axis: int) -> None:
    """Labels far out of range: an index made of them would be far outside any page."""
    for function in (kernels.cross_entropy, kernels.nll_loss):
        try:
            function(logits, labels, class_axis=axis)
        except kernels.InvalidInput:
            continue
        raise AssertionError("a label out of range was accepted")


def problems() -> list[tuple[tuple[int, ...], int]]:
    """Shapes around every seam, and their class axis: last, in the middle, first."""
    last: list[tuple[tuple[int, ...], int]] = [
        ((rows, classes), 1) for rows in (1, 5) for classes in CLASSES
    ]
    middle = [((2, *pair), 1) for pair in itertools.product(CLASSES[:16], INNER)]
    first = [(pair, 0) for pair in itertools.product(CLASSES[:16:3], INNER)]
    return [*last, *middle, *first]


def sweep() -> None:
    """Every problem in every dtype, whole, backwards and cropped; then with a wrong last label."""
    gc.disable()  # a collection that starts inside the allocator sees half-made arrays, and crashes
    rng = np.random.default_rng(0)
    integers = itertools.cycle(dtypes.INTEGERS)
    ends = itertools.cycle([True, True, False])
    for (shape, axis), dtype in itertools.product(problems(), dtypes.FLOATS):
        PLACER.at_end = next(ends)
        classes, integer = shape[axis], next(integers).numpy
        logits = place(zoo.cast(rng.normal(0, 3, shape), dtype))
        outer = tuple(np.delete(shape, axis))
        labels = place(rng.integers(0, min(classes, 128), outer).astype(integer))
        soft = place(zoo.cast(rng.random(shape), dtype))
        weight = place(zoo.cast(rng.random(classes), dtype))
        back = (slice(None, None, -1),) * len(shape)
        crop = tuple(slice(0 if at == axis else 1, None) for at in range(len(shape)))
        with guarded_allocations():
            calls(logits, labels, soft, weight, axis)
            calls(logits[back], labels[back[1:]], soft, weight[::-1], axis)
            calls(logits[crop], labels[(slice(1, None),) * labels.ndim], soft[crop], weight, axis)
        wrong = np.array(labels)
        wrong.flat[-1] = np.iinfo(integer).max if PLACER.at_end else np.iinfo(integer).min
        if not 0 <= int(wrong.flat[-1]) < classes:
            refused(logits, place(wrong), axis)
    print(PLACER.placed, flush=True)
    os._exit(0)  # at a normal exit NumPy frees what is left through callbacks that are gone


def beyond(array: Array, step: int) -> Array:
    """The element ``step`` away from the array's end or start."""
    whole = np.lib.stride_tricks.as_strided(array[-1:], (2,), (step * array.itemsize,))
    return np.asarray(whole[1:])


def too_far(way: str) -> None:
    """Mistakes of one kind, which this process must not survive."""
    PLACER.at_end = way != "read-before"
    array = place(np.ones(1 if way == "read-before" else 5))
    if way == "read-after":
        beyond(array, 1).sum()
    elif way == "read-before":
        beyond(array, -1).sum()
    elif way == "write-input":
        array[0] = 2
    elif way == "write-output":
        with guarded_allocations():
            output = np.zeros(5)
        beyond(output, 1)[0] = 2


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sweep() if sys.argv[1] == "sweep" else too_far(sys.argv[1])
