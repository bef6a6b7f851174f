"""Every CUDA kernel as PTX and as machine code, without a GPU or a driver.

NVVM and nvJitLink come with the extra ``cuda``. Registers and spills are what nvJitLink's ptxas
says; occupancy follows from these and the block's threads, by the limits of the CUDA C++
Programming Guide, table "Technical Specifications per Compute Capability".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

from cuda.bindings import nvjitlink
from numba import cuda, types

from kernels import dtypes
from kernels.cuda.arguments import Labels, Likeliest, Options, Reals, Results
from kernels.cuda.divergence.kernel import Arguments, divergence_kernel
from kernels.cuda.kinds import TABLE, Kind, target
from kernels.cuda.loss import binary, careful, nll, planes, rows
from kernels.cuda.outputs import likeliest, per_class
from kernels.plan import View

CAPABILITIES = ((8, 0), (9, 0), (10, 0))
# Of an SM, the same for all three: registers, warps, blocks; registers are dealt out to warps in
# units of 256.
_REGISTERS, _WARPS, _BLOCKS, _UNIT = 65536, 64, 32, 256
_LOADS = {"float32": "float32", "float64": "float64", "float16": "int16", "bfloat16": "uint16"}


class Case(NamedTuple):
    """A kernel for some types: its ``name``, what it is of, the block's threads, its signature."""

    name: str
    logits: str
    options: str
    threads: int
    kernel: Any
    signature: tuple[Any, ...]


class Compiled(NamedTuple):
    """Compiled code of a case: ``occupancy`` is the share of an SM's warps that find room."""

    registers: int
    stack: int
    spilled: int
    shared: int
    occupancy: float
    ptx: str


def _array(scalar: Any, axes: int = 1) -> Any:
    return types.Array(scalar, axes, "C", aligned=True)


def _tuple(cls: Any, *fields: Any) -> Any:
    return types.BaseTuple.from_types(fields, cls)


def _view(scalar: Any) -> Any:
    return _tuple(View, _array(scalar), *[types.int64] * 6)


def _told(real: Any) -> tuple[Any, Any, Any]:
    """The types of ``Labels``, ``Options`` and ``Results``."""
    long, double, flag = types.int64, types.float64, types.boolean
    labels = _tuple(Labels, _array(long), flag, long, *[_array(double)] * 3)
    reals = _tuple(Reals, *[real] * len(Reals._fields))
    arrays = [_array(double), _array(real)]
    options = _tuple(
        Options, reals, *[double] * 8, *arrays, double, flag, double, flag, double, flag
    )
    results = _tuple(
        Results, *[_array(double)] * 2, *[_array(real)] * 3, *[_array(long)] * 4,
        _array(double, 2), _array(real, 2), _array(long, 2),
    )  # fmt: skip
    return labels, options, results


def _likeliest(real: Any) -> Any:
    long = types.int64
    return _tuple(
        Likeliest, long, long, _array(long), *[_array(real)] * 4, _array(long), _array(real)
    )


def _divergence(load: Any, real: Any) -> Any:
    """The type of ``Arguments``, for logits and targets of type ``load``."""
    long, double = types.int64, types.float64
    return _tuple(
        Arguments, long, long, double, double, long, double, long, *[double] * 3,
        *[_array(load)] * 2, _array(types.uint8), _array(double), *[_array(long)] * 2,
        *[_array(double)] * 4, _array(long), _array(real),
        _array(long, 2), *[_array(double, 2)] * 2, _array(long),
    )  # fmt: skip


def _of_lanes(kind: Kind, results: Any) -> Iterator[tuple[str, int, Any, tuple[Any, ...]]]:
    for row in TABLE.rows:
        if row.lanes <= target.WARP:
            kernel = rows.lanes_kernel(kind, row)
            yield f"rows, {row.lanes} lanes each", row.threads, kernel, (results,)


def cases(dtype: dtypes.DType) -> Iterator[Case]:
    """The kernels for ``dtype``: a plain loss, and all options and outputs at once."""
    load = getattr(types, _LOADS[dtype.name])
    for extent, kind in (("loss", Kind(dtype)), ("all", Kind(dtype, True, True, True, True))):
        real, logits, threads = kind.number, _view(load), TABLE.threads
        labels, options, results = _told(real)
        inputs, out, long = (logits, logits, labels, options), _view(real), types.int64
        merged, state = (*inputs, results, long), _array(types.float64, 2)
        write_rows, write_planes = (per_class.per_class_kernel(kind, way) for way in (True, False))
        for name, size, kernel, signature in (
            *_of_lanes(kind, results),
            ("rows, 128 threads each", 128, rows.block_kernel(kind, 128), (results, long)),
            ("rows, 256 threads each", 256, rows.block_kernel(kind, 256), (results, long)),
            ("planes", threads, planes.plane_kernel(kind), (results, long)),
            ("careful", threads, careful.careful_kernel(kind), (results, out, out)),
            ("per class, rows", threads, write_rows, (state, out, out)),
            ("per class, planes", threads, write_planes, (state, out, out)),
        ):  # fmt: skip
            yield Case(name, dtype.name, extent, size, kernel, inputs + signature)
        yield Case("merge", dtype.name, extent, threads, planes.merge_kernel(kind), merged)
        focal = planes.plane_kernel(kind._replace(focal=True))
        yield Case("focal, planes", dtype.name, extent, threads, focal, (*inputs, results, long))
        given = logits, labels, options, state, _likeliest(real)
        kernel = likeliest.likeliest_kernel(kind)
        yield Case("likeliest", dtype.name, extent, threads, kernel, given)
    for name, kernel, signature in (
        ("nll", nll.nll_kernel(), (logits, labels, options, results)),
        ("binary", binary.binary_kernel(), (*inputs, results, out)),
        ("divergence", divergence_kernel(), (_divergence(load, real),)),
    ):
        yield Case(name, dtype.name, "loss", threads, kernel, signature)
    if dtype is dtypes.FLOAT64:
        sums = _array(types.float64), _array(types.float64), _array(types.float64, 2)
        yield Case("block sums", dtype.name, "loss", threads, nll.blocks_kernel(), sums)


def compiled(case: Case, capability: tuple[int, int]) -> Compiled:
    """``case`` for GPUs of ``capability``."""
    gpu = SimpleNamespace(compute_capability=capability)
    bounds = case.kernel.targetoptions["launch_bounds"]
    # Functions that a kernel calls are compiled for the GPU at hand, and there is none.
    with patch("numba.cuda.dispatcher.get_current_device", lambda: gpu):
        ptx, _ = cuda.compile_ptx(
            case.kernel.py_func, case.signature, cc=capability, launch_bounds=bounds
        )
    log = _linked(ptx, capability)
    registers, spilled = (
        _number(r"Used (\d+) registers", log),
        _number(r"(\d+) bytes spill st", log),
    )
    spilled += _number(r"(\d+) bytes spill loads", log)
    shared = _number(r"(\d+) bytes smem", log)
    occupancy = _occupancy(registers, case.threads)
    return Compiled(registers, _number(r"(\d+) bytes stack", log), spilled, shared, occupancy, ptx)


def _linked(ptx: str, capability: tuple[int, int]) -> str:
    """Log of nvJitLink as it makes machine code of ``ptx``."""
    options = [f"-arch=sm_{capability[0]}{capability[1]}", "-verbose"]
    handle = nvjitlink.create(len(options), options)
    try:
        source = ptx.encode() + b"\0"
        nvjitlink.add_data(handle, nvjitlink.InputType.PTX, source, len(source), "kernel")
        nvjitlink.complete(handle)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
    finally:
        nvjitlink.destroy(handle)
    return log.decode()


def _number(pattern: str, log: str) -> int:
    found = re.findall(pattern, log)
    return max(map(int, found), default=0)


def _occupancy(registers: int, threads: int) -> float:
    warps = -(-threads // 32)
    a_warp = -(-registers * 32 // _UNIT) * _UNIT
    blocks = min(_REGISTERS // a_warp // warps, _WARPS // warps, _BLOCKS)
    return blocks * warps / _WARPS
