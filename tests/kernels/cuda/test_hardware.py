"""Tests of the kernels that need a GPU: real sizes, real memory. ``hardware.py`` runs this file.

LOSSD_HARDWARE=1 is set then. Results are compared with the CPU kernels' and with the float64
oracle's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import devices, dtypes
from tests import oracle, zoo
from tests.oracle import Array

if os.environ.get("LOSSD_HARDWARE") != "1":
    pytest.skip("LOSSD_HARDWARE=1 runs these, on a GPU", allow_module_level=True)
if (WHY_NOT := devices.why_no_gpu()) is not None:
    pytest.skip(WHY_NOT, allow_module_level=True)

from numba import cuda

from kernels.cuda.device import memory
from tests.kernels.cuda.hardware import REHEARSED, on_host, sizes
from tests.kernels.test_outputs import hold

ALL = zoo.outputs()
SOFT = zoo.outputs(soft=True)
# One of each shape of the launch table and its neighbours, then several segments; planes.
ROWS = sizes(
    (1, 10, 16, 17, 64, 65, 256, 257, 1000, 1025, 4096, 4097, 8192, 8193, 32000, 128256),
    (1, 5, 40, 41, 70),
)
PLANES = sizes([((9, 19, 16, 11), 1), ((3, 5000, 9), 1)], [((2, 7, 3), 1), ((2, 40, 3), 1)])
SHAPES = [((sizes(5, 2), classes), 1) for classes in ROWS] + PLANES
FEW = [SHAPES[sizes(8, 2)], SHAPES[-2]]
# Exactly: 3 is the least number of classes of which there are so many elements.
HUGE = sizes((715_827_883, 3), (67, 3))
CLOSE = 4e-6  # float32: both are within 2e-6 of the oracle
EVERY_OPTION = [
    (options, shape, axis)
    for options in zoo.OPTIONS
    for shape, axis in (SHAPES if options in ("plain", "all") else FEW)
]


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    """Check that the whole budget is free at the end of each test."""
    yield
    assert memory.budget().free() == memory.budget().total


def alike(got: dict[str, Any], want: dict[str, Array], scale: float = 1.0) -> None:
    """Compare GPU with CPU results: NaN, infinities and integers exactly."""
    assert list(got) == list(want)
    for name, array in want.items():
        there = on_host(got[name])
        assert (there.shape, there.dtype) == (array.shape, array.dtype), name
        if array.dtype.kind == "i":
            np.testing.assert_array_equal(there, array, err_msg=name)
            continue
        close = scale * (CLOSE if array.dtype == np.float32 else 2e-12)
        # An entropy moves by log(p) for each unit that a logit moves.
        close *= 6.0 if name == "entropy" else 1.0
        np.testing.assert_allclose(there, array, rtol=close, atol=close, err_msg=name)


def both(example: zoo.Example) -> tuple[dict[str, Any], dict[str, Array]]:
    logits, labels, options = example
    outputs = SOFT if labels.dtype.kind not in "iu" else ALL
    return tuple(
        kernels.cross_entropy(logits, labels, outputs=outputs, device=device, **options)
        for device in ("cuda", "cpu")
    )


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
@pytest.mark.parametrize(
    ("options", "shape", "axis"), EVERY_OPTION, ids=lambda value: str(value).replace(" ", "")
)
def test_every_option_and_output(
    options: str, shape: tuple[int, ...], axis: int, soft: bool, dtype: dtypes.DType
) -> None:
    example = zoo.example(shape, axis, dtype, options, soft=soft)
    got, want = both(example)
    alike(got, want, 2 * example.softened())
    hold(example)
    logits, labels, more = example
    exact = oracle.cross_entropy(logits, labels, **more)
    oracle.assert_close(got["loss"], exact, 2 * example.softened())
    divided = oracle.gradient(logits, labels, **more)
    oracle.assert_close(on_host(got["gradient"]), divided, 2 * example.softened())


@pytest.mark.parametrize("classes", ROWS)
@pytest.mark.parametrize("axis", [1, 0], ids=["rows", "planes"])
def test_rows_that_are_no_numbers(axis: int, classes: int, dtype: dtypes.DType) -> None:
    """NaN, infinities and 3e38 at the start, middle and end of a row; its neighbours stay right."""
    rng = np.random.default_rng(classes)
    values = (np.nan, np.inf, -np.inf, 3e38, -3e38)
    places = (0, classes // 2, classes - 1)
    rows = rng.normal(0, 3, (2 * len(values) * len(places) + 3, classes))
    for at, value in enumerate(value for value in values for _ in places):
        rows[2 * at, places[at % len(places)]] = value
    rows[-3], rows[-1, : max(1, classes - 1)] = -np.inf, -np.inf
    logits, labels = zoo.cast(rows, dtype), rng.integers(0, classes, len(rows))
    labels[1] = -100
    lying = logits if axis else np.ascontiguousarray(logits.T)
    options = {"class_axis": axis, "reduction": "none"}
    alike(*both(zoo.Example(lying, labels, options)), scale=2.0)


@pytest.mark.parametrize("name", zoo.LAYOUTS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_layout(name: str, axis: int) -> None:
    shape = sizes((33, 40, 35), (3, 4, 5))
    for dtype in (dtypes.FLOAT32, dtypes.BFLOAT16):
        example = zoo.example(shape, axis, dtype, "all").lying(zoo.LAYOUTS[name])
        alike(*both(example), scale=2 * example.softened())


@pytest.mark.parametrize(
    "label", [-1, 10, 2**31, -(2**31), 2**62, 2**63 - 1, -(2**63)], ids=lambda label: f"{label:x}"
)
def test_labels_out_of_range(label: int) -> None:
    """Error names the first of several wrong labels among a million."""
    rows = sizes(1_000_000, 50)
    logits = np.zeros((rows, 10), np.float32)
    labels = np.zeros(rows, np.int64)
    labels[[rows // 2, rows // 2 + 1, rows - 1]] = label
    for outputs in (None, ALL):
        with pytest.raises(kernels.InvalidInput) as caught:
            kernels.cross_entropy(logits, labels, outputs=outputs, device="cuda")
        assert caught.value.position == (rows // 2,)


@pytest.mark.parametrize("shape", [(0, 5), (3, 5, 0), (1, 1), (1,), (5,), (1, 1, 1, 1)], ids=str)
def test_no_element_and_one(shape: tuple[int, ...], dtype: dtypes.DType) -> None:
    alike(*both(zoo.example(shape, min(1, len(shape) - 1), dtype, "plain")))


def test_more_elements_than_an_int32_counts() -> None:
    """2**31 + 1 of them from the host, in rows of a pattern whose losses are known."""
    rows, classes = HUGE
    pattern = np.random.default_rng(0).normal(0, 3, (251, classes)).astype(np.float16)
    labels = (np.arange(251) % classes).astype(np.int8)
    losses = kernels.cross_entropy(
        pattern, labels, outputs=["per_element"], reduction="none", device="cuda"
    )["per_element"]
    logits = np.resize(pattern, (rows, classes))
    assert REHEARSED or logits.size == 2**31 + 1
    got = kernels.cross_entropy(
        logits, np.resize(labels, rows), outputs=["loss", "per_element"], device="cuda"
    )
    whole = got["per_element"][: rows // 251 * 251].reshape(-1, 251)
    assert (whole == losses).all()
    exact = np.resize(losses, rows).mean(dtype=np.float64)
    assert abs(float(got["loss"]) - exact) <= 1e-6 * exact
    memory.budget().drop()


def test_the_same_bits_each_time() -> None:
    example = zoo.example(sizes((257, 9000), (7, 70)), 1, dtypes.BFLOAT16, "all")
    first = {name: on_host(array).tobytes() for name, array in both(example)[0].items()}
    for _ in range(sizes(20, 2)):
        again = both(example)[0]
        assert {name: on_host(array).tobytes() for name, array in again.items()} == first


@pytest.mark.skipif(REHEARSED, reason="the simulator runs one kernel at a time")
def test_several_threads_at_once() -> None:
    shapes = [(513, 1000), (3, 40000), (5000, 10), (64, 8193)] * 2
    examples = [zoo.example(shape, 1, dtypes.FLOAT32, "plain") for shape in shapes]
    want = [both(example)[0]["loss"].tobytes() for example in examples]
    got: list[bytes] = [b""] * len(examples)

    def compute(at: int) -> None:
        for _ in range(10):
            got[at] = both(examples[at])[0]["loss"].tobytes()

    threads = [threading.Thread(target=compute, args=(at,)) for at in range(len(examples))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == want


@pytest.mark.skipif(REHEARSED, reason="the simulator's memory has no end")
def test_the_device_has_no_more_memory() -> None:
    """Allocation that fails: an error, nothing held, and the next call is right."""
    free, total = cuda.current_context().get_memory_info()
    memory.set_budget(2**50)
    try:
        with (
            pytest.raises(kernels.DeviceOutOfMemory, match="device has not"),
            devices_failures(),
            memory.budget().lease(total),
        ):
            pass
        assert memory.budget().leased == 0
        assert cuda.current_context().get_memory_info()[0] >= free - 2**26
        loss = kernels.cross_entropy(np.zeros((3, 5), np.float32), [0, 1, 2], device="cuda")
        assert float(loss) == pytest.approx(np.log(5), rel=1e-6)
    finally:
        memory.set_budget(memory.share_of_free())


def devices_failures() -> Any:
    """Context in which errors of the driver are translated."""
    from kernels.cuda.device import failures

    return failures.named()


def on_gpu(array: Array, dtype: dtypes.DType, torch: Any) -> Any:
    """PyTorch tensor of ``array`` on the device; on the simulator a stand-in."""
    if REHEARSED:
        from tests.kernels.cuda.simulated_resident import OverDLPack

        return OverDLPack(np.ascontiguousarray(array))
    if dtype is dtypes.BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).cuda().view(torch.bfloat16)
    return torch.from_numpy(array).cuda()


@pytest.fixture
def torch() -> Any:
    """PyTorch; None on the simulator."""
    return None if REHEARSED else pytest.importorskip("torch")


@pytest.mark.parametrize("soft", [False, True], ids=["indices", "probabilities"])
def test_what_lies_there_already(soft: bool, dtype: dtypes.DType, torch: Any) -> None:
    """PyTorch's tensors: no copy of the logits, the CPU's results, the gradient left there."""
    for shape, axis in (*FEW, SHAPES[-3]):
        logits, labels, options = zoo.example(shape, axis, dtype, "all", soft=soft)
        outputs = SOFT if soft else ALL
        want = kernels.cross_entropy(logits, labels, outputs=outputs, device="cpu", **options)
        there = on_gpu(logits, dtype, torch)
        labels_there = on_gpu(labels, dtype if soft else dtypes.BY_NAME["int64"], torch)
        for given in (labels, labels_there):
            got = kernels.cross_entropy(there, given, outputs=outputs, device="cuda", **options)
            alike(got, want, 12.0)
        if not REHEARSED:
            gradient = torch.as_tensor(got["gradient"], device="cuda")
            assert gradient.data_ptr() == got["gradient"].__cuda_array_interface__["data"][0]


@pytest.mark.skipif(REHEARSED, reason="it is of PyTorch's tensors")
def test_what_pytorch_has_there_and_is_not_taken(torch: Any) -> None:
    logits = torch.zeros(6, 8, device="cuda")
    for wrong in (logits[:, ::2], logits.T, logits.int(), logits.clone().requires_grad_()):
        with pytest.raises(kernels.InvalidInput):
            kernels.cross_entropy(wrong, np.zeros(6, int), class_axis=0, device="cuda")


@pytest.mark.skipif(REHEARSED, reason="streams of the simulator are none")
def test_what_another_stream_still_writes(torch: Any) -> None:
    """Logits written on another stream, which the kernels' stream waits for."""
    stream = torch.cuda.Stream()
    logits = torch.zeros(4096, 32000, device="cuda")
    labels = torch.zeros(4096, dtype=torch.int64, device="cuda")
    for value in (1.0, 2.0, 3.0):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(20):
                logits.fill_(0.0)
            logits[:, 0] = value
            got = float(kernels.cross_entropy(logits, labels, device="cuda"))
        assert got == pytest.approx(np.log(np.exp(value) + 31999) - value, rel=1e-6)


@pytest.mark.skipif(REHEARSED, reason="it takes 4 GB on the device")
def test_more_elements_than_an_int32_counts_in_one_array(torch: Any) -> None:
    """One kernel walks 2**31 + 128 elements on the device."""
    torch.manual_seed(0)
    logits = torch.randn(2**24 + 1, 128, device="cuda", dtype=torch.float16)
    labels = torch.randint(0, 128, (2**24 + 1,), device="cuda")
    got = kernels.cross_entropy(logits, labels, outputs=["loss", "per_element"], device="cuda")
    for start in (0, 2**23, 2**24 - 9000):
        part = slice(start, start + 10000)
        want = torch.nn.functional.cross_entropy(
            logits[part].double(), labels[part], reduction="none"
        )
        np.testing.assert_allclose(
            got["per_element"][part], want.cpu().numpy(), rtol=CLOSE, atol=CLOSE
        )
    assert float(got["loss"]) == pytest.approx(got["per_element"].mean(dtype=np.float64), rel=1e-6)
    memory.budget().drop()
