"""Elementary functions against NumPy's long doubles, with AVX-512's instructions and without."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels.compiled import kernel
from kernels.simd import (
    are_classes,
    avx512,
    before_line,
    constant,
    count_greater,
    exp2,
    less_at,
    load,
    load_labels,
    log2,
    log2_above,
    log2_float32,
    merge_high,
    merge_low,
    nearest_product,
    no_label,
    pair_maxima,
    scaled_down,
    store,
    store_past,
    stored_past,
    transpose,
    transpose_eights,
    transpose_fours,
    width,
)

ROOT = Path(__file__).parents[2]
HASWELL = "+sse4.2,+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt"


@kernel
def _exp2(x: Any, out: Any) -> None:
    for i in range(0, x.size, width(x)):
        store(out, i, exp2(load(x, i)))


@kernel
def _log2(x: Any, out: Any, rough: Any) -> None:
    for i in range(0, x.size, width(x)):
        store(out, i, log2(load(x, i)))
        store(rough, i, log2_float32(load(x, i)))


@pytest.mark.parametrize(("kind", "bound"), [(np.float32, 1.7e-7), (np.float64, 3e-16)])
def test_exp2(kind: type[Any], bound: float) -> None:
    x = np.random.default_rng(0).uniform(-125, 126, 1 << 18).astype(kind)
    x[:16] = [0, -0.0, 1, -1, 126, -126, 0.5, -0.5, 1e-30, -1e-30, 10, -10, 0.999999, 1.5, 2.5, 3]
    out = np.empty_like(x)
    _exp2(x, out)
    assert float(np.abs(out / np.exp2(x.astype(np.longdouble)) - 1).max()) < bound
    assert out[:6].tolist() == [1, 1, 2, 0.5, 2.0**126, 2.0**-126]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_exp2_out_of_range(kind: type[Any]) -> None:
    """It is tiny or huge, or NaN where it should be: never something in between."""
    x = np.repeat(np.array([-np.inf, -1e30, -1100, np.nan, np.inf, 1e30, 1100, 0], kind), 2)
    out = np.empty_like(x)
    _exp2(x, out)
    assert (out[:6] <= np.finfo(kind).tiny).all()
    assert (out[:6] >= 0).all()
    assert np.isnan(out[6:8]).all()
    assert (out[8:14] >= 2.0 ** (np.finfo(kind).maxexp - 1)).all()
    assert (out[14:] == 1).all()


def test_log2() -> None:
    x = np.exp2(np.random.default_rng(0).uniform(-100, 100, 1 << 16))
    x[:8] = [1, 2, 0.5, 1 + 2**-40, 1 - 2**-40, 2**0.5, 0.5**0.5, 2.0**-900]
    out, rough = np.empty_like(x), np.empty_like(x)
    _log2(x, out, rough)
    exact = np.log2(x.astype(np.longdouble))
    assert float((np.abs(out - exact) / np.maximum(abs(exact), 1)).max()) < 4.5e-16
    assert float((np.abs(rough - exact) / np.maximum(abs(exact), 1e-300)).max()) < 4.2e-9
    assert out[:3].tolist() == rough[:3].tolist() == [0, 1, -1]


@kernel
def _log2_above(x: Any, t: Any, out: Any) -> None:
    for i in range(0, x.size, 16):
        store(out, i, log2_above(load(x, i), load(t, i)))


def test_log2_above() -> None:
    generator = np.random.default_rng(0)
    x = np.exp2(generator.uniform(-60, 60, 1 << 16)).astype(np.float32)
    gap = generator.uniform(-3, 3, x.size)
    gap[::4] = 0.0
    t = (np.log2(x.astype(np.float64)) - gap).astype(np.float32)
    x[:4], t[:4] = [1, 2, np.nan, np.inf], [0, 1, 0, 0]
    t[4:6] = [-np.inf, np.nan]
    out = np.empty_like(x)
    _log2_above(x, t, out)
    assert out[:2].tolist() == [0, 0]
    assert np.isnan(out[2:6]).all()
    exact = np.log2(x[6:].astype(np.longdouble)) - t[6:]
    assert float((np.abs(out[6:] - exact) / np.maximum(1, np.abs(exact))).max()) < 2.5e-7


@kernel
def _transpose(x: Any, starts: Any, count: int, out: Any, stride: int) -> None:
    transpose(x, starts, 1, count, out, 3, stride)


@pytest.mark.parametrize("count", [1, 10, 16])
def test_transpose(count: int) -> None:
    x = np.arange(1000, dtype=np.float32)
    starts = np.random.default_rng(0).integers(0, 980, 16)
    out = np.full(3 + 16 * 20, -1, np.float32)
    _transpose(x, starts, count, out, 20)
    columns = out[3:].reshape(16, 20)
    want = starts + 1 + np.arange(count)[:, None]
    assert (columns[:count, :16] == want).all()
    assert (columns[count:, :16] == 0).all()
    assert (columns[:, 16:] == -1).all()
    assert (out[:3] == -1).all()


@kernel
def _transpose_evenly(x: Any, eights: Any, fours: Any) -> None:
    transpose_eights(x, 1, 9, eights, 0, 16)
    transpose_fours(x, 1, 9, fours, 0, 16)


@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_transpose_evenly(kind: type[Any]) -> None:
    """The rows are as far apart as nine elements; 16-bit floats are given by their bits."""
    numbers = np.arange(1 + 15 * 9 + 8, dtype=np.float32)
    x = numbers.astype(np.float16).view(np.int16) if kind is np.int16 else numbers
    eights, fours = np.zeros(8 * 16, np.float32), np.zeros(4 * 16, np.float32)
    _transpose_evenly(x, eights, fours)
    want = 1 + 9 * np.arange(16) + np.arange(8)[:, None]
    assert (eights.reshape(8, 16) == want).all()
    assert (fours.reshape(4, 16) == want[:4]).all()


@kernel
def _labels(numbers: Any, classes: int, mask: int, out: Any) -> Any:
    lanes, largest = load_labels(numbers, 0, no_label(numbers))
    store(out, 0, lanes)
    return are_classes(numbers, largest, classes, mask)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64])
def test_labels_are_classes(kind: type[Any]) -> None:
    """Each label that is no class is found, whatever its sign and width."""
    numbers, out = np.arange(16).astype(kind), np.empty(16, np.float32)
    assert _labels(numbers, 16, -1, out)
    assert (out == np.arange(16)).all()
    limits = np.iinfo(kind)
    for wrong in (-1, -100, 16, limits.min, limits.max):
        numbers[5] = wrong
        assert not _labels(numbers, 16, -1, out)
        assert not _labels(numbers, min(200, limits.max), -1, out) or 0 <= wrong < 200


@kernel
def _powers(x: Any, y: Any, down: Any, near: Any, merged: Any) -> None:
    store(down, 0, scaled_down(load(x, 0), load(y, 0)))
    store(near, 0, nearest_product(load(x, 0), load(y, 0)))
    wide = merged[:8]
    store(merged, 8, merge_high(load(wide, 0), load(wide, 0)))
    store(merged, 0, merge_low(load(wide, 0), load(wide, 0)))


def test_powers_and_merged_lanes() -> None:
    x = np.linspace(0.7, 40.0, 16, dtype=np.float32)
    y = -np.array([0, 1, 2, 3, 7, 24, 60, 100, 120, 126, 140, 300, 2**23, 5, 6, 9], np.float32)
    down, near, merged = np.empty_like(x), np.empty_like(x), np.repeat(np.arange(8.0), 2)
    merged[:8] = np.arange(8.0)
    _powers(x, y, down, near, merged)
    exact = x.astype(np.float64) * np.exp2(y.astype(np.float64))
    normal = exact >= 2.0**-126
    assert (down[normal] == exact[normal]).all()
    assert (down[~normal] <= 2.0**-120).all()
    small = np.abs(x * y) < 2**22
    assert (near[small] == np.rint((x.astype(np.float64) * y)[small])).all()
    assert (merged == np.repeat(np.arange(8.0), 2)).all()


@kernel
def _stored(x: Any, lane: int, amount: float, out: Any) -> Any:
    first = before_line(out, 0)
    for i in range(first, x.size - width(x) + 1, width(x)):
        store_past(out, i, less_at(load(x, i), lane, constant(x, amount)))
    stored_past()
    return first


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_stores_past_the_caches(kind: type[Any]) -> None:
    """Whole cache lines, from the first on; one lane of each has been made less."""
    step = 64 // np.dtype(kind).itemsize
    whole = np.zeros(10 * step, kind)
    for start in (0, 1, step - 1):
        x, out = np.arange(4 * step, dtype=kind), whole[start : start + 4 * step]
        out[...] = -1
        first = _stored(x, 3, 0.5, out)
        assert out[first:].ctypes.data % 64 == 0
        assert 0 <= first < step
        count = (x.size - first) // step * step
        written = out[first : first + count].reshape(-1, step)
        want = x[first : first + count].reshape(-1, step).copy()
        want[:, 3] -= 0.5
        assert (written == want).all()
        assert (out[:first] == -1).all()
        assert (out[first + count :] == -1).all()


@kernel
def _pairs(x: Any, out: Any) -> Any:
    a, b = load(x, 0), load(x, 16)
    store(out, 0, pair_maxima(a, b, 4))
    return count_greater(a, b)


def test_pairs_and_counts() -> None:
    x = np.random.default_rng(0).permutation(32).astype(np.float32)
    out = np.empty(16, np.float32)
    a, b = x.reshape(2, 16)
    assert _pairs(x, out) == int((a > b).sum())
    lanes = np.arange(16)
    chosen = np.where(lanes & 4, 1, 0)
    both = x.reshape(2, 16)
    assert (out == np.maximum(both[chosen, lanes & ~4], both[chosen, lanes | 4])).all()


@pytest.mark.slow
@pytest.mark.skipif(not avx512.AVAILABLE, reason="this machine is without AVX-512 anyway")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="Haswell is an x86-64")
def test_without_avx512(tmp_path: Path) -> None:
    """These tests and a loss, compiled for a machine that has only AVX2."""
    made = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": HASWELL}
    example = "tests/kernels/test_worked_example.py::test_loss_to_four_digits[float32]"
    tests = ["tests/kernels/test_simd.py", example]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, **made},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout
    assert "1 skipped" in ran.stdout


@pytest.mark.parametrize(
    ("cpu", "levels"), [("znver5", "[3]"), ("znver4", "[2, 3]"), ("sapphirerapids", "[2, 3]")]
)
def test_lines_are_brought_to_l2_first_but_on_zen_5(cpu: str, levels: str) -> None:
    program = "from kernels.simd import stream; print([level for _, level in stream._IN_TURNS[32]])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, env={**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": HASWELL},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == levels, done.stderr[-2000:]
