"""Arrays of other libraries on the device, without a copy: ``test_simulated.py`` runs this file.

The simulator's device memory is the host's, so that NumPy's arrays stand for them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import dtypes
from kernels.cuda.device import foreign, memory
from kernels.cuda.launch import resident
from kernels.devices import lies_on_gpu
from kernels.problem import check
from tests import zoo
from tests.oracle import Array

SHAPES = [((9, 5), 1), ((3, 70), 1), ((6,), 0), ((2, 7, 3), 1), ((2, 3, 7), -1), ((7, 5), 0)]
_CODES = {"float32": 2, "float64": 2, "float16": 2, "bfloat16": 4}


class Exporting:
    """Array on a GPU by ``__cuda_array_interface__``."""

    def __init__(self, array: Array) -> None:
        self.array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.array.__array_interface__, "version": 3, "stream": 1}


class OverDLPack:
    """Array on a GPU by DLPack; bfloat16, which NumPy lacks, is written into the capsule."""

    def __init__(self, array: Array) -> None:
        row = dtypes.of(array)
        assert row is not None
        self._code = _CODES.get(row.name)
        self.array = array.view(row.load) if row.name == "bfloat16" else array
        self.streams: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: Any = None) -> Any:
        self.streams.append(stream)
        capsule = self.array.__dlpack__()
        if self._code is not None:
            pointer = ctypes.pythonapi.PyCapsule_GetPointer
            pointer.restype = ctypes.c_void_p
            pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
            foreign._Tensor.from_address(pointer(capsule, b"dltensor")).code = self._code
        return capsule


def exporters(dtype: dtypes.DType) -> list[Callable[[Array], Any]]:
    return [OverDLPack] if dtype is dtypes.BFLOAT16 else [OverDLPack, Exporting]


def host(value: Any) -> Array:
    return np.asarray(value.copy_to_host() if hasattr(value, "copy_to_host") else value)


@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
@pytest.mark.parametrize("soft", [False, True], ids=["classes", "probabilities"])
def test_the_bits_are_those_of_host_arrays(
    shape: tuple[int, ...], axis: int, soft: bool, dtype: dtypes.DType
) -> None:
    logits, labels, options = zoo.example(shape, axis, dtype, "all", soft=soft)
    outputs = zoo.outputs(soft)
    # Classes that come last in the shape, or not, are walked on the device as they lie there.
    want = kernels.cross_entropy(logits, labels, outputs=outputs, device="cuda", **options)
    for export in exporters(dtype):
        for given in (labels, export(labels) if soft else Exporting(labels)):
            got = kernels.cross_entropy(
                export(logits), given, outputs=outputs, device="cuda", **options
            )
            assert list(got) == outputs
            for name in outputs:
                assert host(got[name]).shape == want[name].shape
                if axis != 0 or len(shape) == 1:
                    assert host(got[name]).tobytes() == want[name].tobytes()
                else:
                    np.testing.assert_allclose(host(got[name]), want[name], rtol=3e-6, atol=1e-6)
    assert memory.budget().free() == memory.budget().total


@pytest.mark.parametrize("shape", [(9, 5), (3, 70), (2, 7, 3)], ids=str)
def test_what_is_queued_twice(shape: tuple[int, ...], dtype: dtypes.DType) -> None:
    """Queued twice, as in ``benchmarks/cuda``: the same bits."""
    logits, labels, _ = zoo.example(shape, 1, dtype, "plain")
    names = ("loss", "gradient")
    want = kernels.cross_entropy(logits, labels, outputs=names, device="cuda")
    problem = check(logits, labels)
    given = {"logits": OverDLPack(logits)}
    views = {"logits": foreign.adopt(given["logits"], "logits").view(dtype.load)}
    size = resident.bytes_of(problem, names, views)
    with memory.budget().lease(size) as buffers:
        queued = resident.Resident(problem, names, views, buffers)
        for _ in range(2):
            queued.queue()
            got = queued.answers()
            assert got["loss"].tobytes() == want["loss"].tobytes()
            assert host(got["gradient"]).tobytes() == want["gradient"].tobytes()


@pytest.mark.parametrize("width", ["i1", "i4", "i8", "u2"])
def test_labels_of_any_width_there_or_here(width: str) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (11, 7)).astype(np.float32)
    labels = (np.arange(11) % 7).astype(width)
    want = kernels.cross_entropy(logits, labels, device="cuda")
    for given in (labels, Exporting(labels)):
        got = kernels.cross_entropy(Exporting(logits), given, device="cuda")
        assert got.tobytes() == want.tobytes()


def test_the_logits_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = resident.__dict__["launch"]

    def launch(*arguments: Any) -> None:
        seen.append(arguments[4].logits.data.__array_interface__["data"][0])
        real(*arguments)

    monkeypatch.setattr(resident, "launch", launch)
    logits = OverDLPack(np.zeros((4, 5), np.float32))
    kernels.cross_entropy(logits, [0, 1, 2, 3], device="cuda")
    assert seen == [logits.array.__array_interface__["data"][0]]
    assert logits.streams == [1]


def test_weights_may_lie_there_too() -> None:
    logits, labels, options = zoo.example((12, 5), 1, dtypes.FLOAT32, "all")
    want = kernels.cross_entropy(logits, labels, device="cuda", **options)
    for name in ("weight", "sample_weight"):
        options[name] = Exporting(options[name])
    got = kernels.cross_entropy(Exporting(logits), labels, device="cuda", **options)
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("export", [Exporting, OverDLPack])
def test_the_first_impossible_label_is_named(export: Any) -> None:
    labels = np.array([0, 9, -1])
    for given in (labels, export(labels)):
        with pytest.raises(kernels.InvalidInput, match="9") as caught:
            kernels.cross_entropy(export(np.zeros((3, 5), np.float32)), given, device="cuda")
        assert caught.value.position == (1,)
    probabilities = np.full((3, 5), 0.2, np.float32)
    probabilities[2] = 7
    with pytest.raises(kernels.InvalidInput) as caught:
        kernels.cross_entropy(
            export(np.zeros((3, 5), np.float32)), export(probabilities), device="cuda"
        )
    assert caught.value.position == (2,)
    assert memory.budget().free() == memory.budget().total


def test_what_is_not_taken_is_said() -> None:
    def refused(logits: Any, labels: Any = (0, 1)) -> str:
        with pytest.raises(kernels.InvalidInput) as caught:
            kernels.cross_entropy(logits, labels, device="cuda")
        return caught.value.message

    wide = np.zeros((2, 10), np.float32)
    assert "contiguous" in refused(Exporting(wide[:, ::2]))
    assert "contiguous" in refused(OverDLPack(wide.T[:2]))
    assert "type" in refused(Exporting(np.zeros((2, 5), np.complex64)))
    assert "int32" in refused(Exporting(np.zeros((2, 5), np.int32)))
    doubles = np.full((2, 10), 0.1)
    assert "float64" in refused(Exporting(wide), Exporting(doubles))
    assert "no classes" in refused(Exporting(np.zeros((2, 0), np.float32)))

    class Grudging(Exporting):
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            raise RuntimeError("it requires a gradient: detach it first")

    with pytest.raises(RuntimeError, match="detach"):
        lies_on_gpu(Grudging(wide))


def test_nothing_at_all() -> None:
    empty = Exporting(np.zeros((0, 5), np.float32))
    labels = np.zeros(0, np.int64)
    assert np.isnan(kernels.cross_entropy(empty, labels, device="cuda"))
    got = kernels.cross_entropy(empty, labels, outputs=["gradient"], device="cuda", empty="zero")
    assert got["gradient"].shape == (0, 5)


def test_what_lies_on_the_host_does_not_lie_on_a_gpu() -> None:
    array = np.zeros((2, 5), np.float32)
    assert not any(map(lies_on_gpu, (array, None, [1, 2], b"")))
    assert lies_on_gpu(Exporting(array))
    assert lies_on_gpu(OverDLPack(array))


def test_too_little_memory_is_said_and_nothing_kept() -> None:
    memory.set_budget(2_000)
    try:
        with pytest.raises(kernels.DeviceOutOfMemory):
            kernels.cross_entropy(
                Exporting(np.zeros((300, 5), np.float32)), np.zeros(300, int), device="cuda"
            )
        assert memory.budget().leased == 0
    finally:
        memory.set_budget(1 << 24)


@pytest.mark.parametrize("shift", [0, 1, -2])
def test_sequences_on_the_device(shift: int, dtype: dtypes.DType) -> None:
    """Labels, mask and segments there too: they are moved on the host."""
    logits, labels, options = zoo.example((3, 5, 6), 2, dtype, "sample_weight")
    own = {
        "mask": (np.arange(15).reshape(3, 5) % 4 != 1).astype(np.uint8),
        "segments": np.arange(15).reshape(3, 5) % 5 // 2,
    }
    outputs = ["loss", "per_element", "rank", "count", "sequence_loss", "sequence_count"]
    outputs += ["sequence_greedy", "sequence_perplexity", "perplexity"]
    want = kernels.cross_entropy(
        logits, labels, outputs=outputs, device="cuda", shift=shift, **own, **options
    )
    cpu = kernels.cross_entropy(
        logits, labels, outputs=outputs, device="cpu", shift=shift, **own, **options
    )
    there: dict[str, Any] = {name: Exporting(array) for name, array in own.items()}
    got = kernels.cross_entropy(
        OverDLPack(logits), Exporting(labels), outputs=outputs, device="cuda", shift=shift,
        **there, **options,
    )  # fmt: skip
    for name in outputs:
        assert host(got[name]).tobytes() == want[name].tobytes(), name
        np.testing.assert_allclose(want[name], cpu[name], rtol=3e-6, atol=1e-6)
