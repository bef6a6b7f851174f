"""Contestants: the kernels, the machine's limits, and other libraries as their users call them.

Peers are imported by name when they are measured: none is needed to install, test or run lossd.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numba
import numpy as np

import kernels
from benchmarks.kernel import divergence
from benchmarks.kernel.onnx_model import ELEMENT, cross_entropy_model
from benchmarks.machine import THREADS, version
from benchmarks.plain_read import exponentials, read_and_sum
from benchmarks.problems import Array, Data
from kernels.dtypes import BFLOAT16, FLOAT32

# Bytes: cases of fewer logits are limited by Python.
_LIMITED = 4096
# Bytes that a launch reads at least, again and again if need be: 1 ms, and the launch 5 us.
_LAUNCH = 2**26


class CannotRun(Exception):
    """Raised where a contestant does not offer a case; the message says what is missing."""


@dataclass(frozen=True)
class Entry:
    """Functions of one contestant at one case: ``call`` does all of the work before it returns.

    ``error`` gives the relative error of a call's result against float64; ``per_element``, where
    given, computes the unreduced losses; ``release`` frees memory that the contestant keeps, so
    that a peak can be measured. A call does the work of the case ``times``.
    """

    call: Callable[[], Any]
    error: Callable[[Any], float]
    per_element: Callable[[], Array] | None = None
    release: Callable[[], Any] = lambda: None
    times: float = 1.0


@dataclass(frozen=True)
class Contestant:
    """A named implementation: ``enter`` prepares it for a case.

    ``enter`` raises ``CannotRun``, or any error of its library.
    """

    name: str
    distribution: str
    enter: Callable[[Data], Entry]

    def version(self) -> str | None:
        """Installed version, or ``None``."""
        return version(self.distribution)


def _error(data: Data) -> Callable[[Any], float]:
    """Error function for results that are a loss, or a loss and a gradient."""
    if data.case.wants == "loss":
        return lambda loss: data.loss_error(loss)

    def both(result: Any) -> float:
        loss, gradient = result
        return max(data.loss_error(loss), data.gradient_error(np.asarray(gradient)))

    return both


def _ours(data: Data) -> Entry:
    numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))
    logits, labels = data.logits, data.labels
    if data.case.wants == "divergence":
        return Entry(*divergence.ours(data))
    if data.case.wants == "gradient":

        def call() -> Any:
            outputs = ("loss", "gradient")
            return tuple(kernels.cross_entropy(logits, labels, outputs=outputs).values())

        return Entry(call, _error(data))
    return Entry(
        lambda: kernels.cross_entropy(logits, labels),
        _error(data),
        lambda: kernels.cross_entropy(logits, labels, reduction="none"),
    )


def _limited(data: Data) -> None:
    """Raise ``CannotRun`` where a case has no limit but Python; else take the threads."""
    if data.logits.nbytes < _LIMITED:
        raise CannotRun("no limit: calls take longer than the work")
    numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))


def _plain_read(data: Data) -> Entry:
    """Read logits and labels, in the place where they are; a gradient's write counts as a read."""
    _limited(data)
    if data.case.wants == "divergence":
        return Entry(*divergence.plain_read(data))
    numbers = data.logits.reshape(-1).view(np.float32)  # 16-bit ones in pairs
    labels = np.ones(data.labels.nbytes // 4, np.float32)
    exact = float(numbers.sum(dtype=np.float64) + labels.sum(dtype=np.float64))
    size = float(np.abs(numbers).sum(dtype=np.float64) + np.abs(labels).sum(dtype=np.float64))
    read = numbers.nbytes + labels.nbytes
    times = max(1, _LAUNCH // read)
    moved = read + (numbers.nbytes if data.case.wants == "gradient" else 0)
    return Entry(
        lambda: read_and_sum(numbers, labels, times),
        lambda total: abs(total - exact) / size,
        times=times * read / moved,
    )


def _exponentials(data: Data) -> Entry:
    """As many exponentials as there are logits, of numbers in L1."""
    _limited(data)
    count = data.logits.size
    wanted = max(count, _LAUNCH // 4)
    done = exponentials(wanted)
    return Entry(
        lambda: exponentials(wanted),
        lambda each: float(each != done),
        times=done / count,
    )


def _torch() -> Any:
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    torch = import_module("torch")
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)  # a no_grad() in each call would take time
    return torch


def _torch_entry(data: Data, torch: Any, function: Any, **options: Any) -> Entry:
    bits = data.logits.view(np.int16) if data.case.dtype is BFLOAT16 else data.logits
    logits, labels = torch.from_numpy(bits), torch.from_numpy(data.labels)
    if data.case.dtype is BFLOAT16:
        logits = logits.view(torch.bfloat16)
    if data.case.wants == "gradient":
        logits.requires_grad_(True)

        def call() -> Any:
            with torch.enable_grad():
                loss = function(logits, labels)
                return loss.detach(), torch.autograd.grad(loss, logits)[0]

        return Entry(call, _error(data))
    return Entry(lambda: function(logits, labels), _error(data), **options)


def _no_divergence(data: Data) -> None:
    if data.case.wants == "divergence":
        raise CannotRun("no divergence in one call")


def _eager(data: Data) -> Entry:
    torch = _torch()
    if data.case.wants == "divergence":
        return Entry(*divergence.torch(data, torch, compiled=False))
    function = torch.nn.functional.cross_entropy
    if data.case.dtype is not FLOAT32 or data.case.wants != "loss":
        return _torch_entry(data, torch, function)
    logits, labels = torch.from_numpy(data.logits), torch.from_numpy(data.labels)
    return _torch_entry(
        data,
        torch,
        function,
        per_element=lambda: function(logits, labels, reduction="none").numpy(),
    )


def _compiled(data: Data) -> Entry:
    torch = _torch()
    torch.compiler.reset()  # or the next shape counts as dynamic, which is slower
    if data.case.wants == "divergence":
        return Entry(*divergence.torch(data, torch, compiled=True))
    function = torch.compile(
        lambda logits, labels: torch.nn.functional.cross_entropy(logits, labels), dynamic=False
    )
    return _torch_entry(data, torch, function)


def _jax(data: Data) -> Entry:
    _no_divergence(data)
    os.environ.setdefault("NPROC", str(THREADS))  # the size of XLA's thread pool
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    jax = import_module("jax")
    jnp = jax.numpy

    def loss(logits: Any, labels: Any) -> Any:  # as optax writes it
        logits = logits.astype(jnp.float32)
        labels = jnp.expand_dims(labels, 1)
        log_sums = jax.nn.logsumexp(logits, 1, keepdims=True)
        return (log_sums - jnp.take_along_axis(logits, labels, 1)).mean()

    function = jax.jit(loss if data.case.wants == "loss" else jax.value_and_grad(loss))
    bfloat16 = data.case.dtype is BFLOAT16
    logits = jnp.asarray(data.logits.view(jnp.bfloat16) if bfloat16 else data.logits)
    labels = jnp.asarray(data.labels.astype(np.int32))  # its own default
    return Entry(lambda: jax.block_until_ready(function(logits, labels)), _error(data))


def _onnxruntime(data: Data) -> Entry:
    _no_divergence(data)
    if data.case.wants == "gradient":
        raise CannotRun("no gradients")
    if data.case.dtype not in ELEMENT:
        raise CannotRun(f"takes no {data.case.dtype.name} from NumPy")
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = runtime.InferenceSession(
        cross_entropy_model(data.case.shape, data.case.dtype),
        options,
        providers=["CPUExecutionProvider"],
    )
    feed = {"logits": data.logits, "labels": data.labels}
    shrinking = runtime.RunOptions()
    shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return Entry(
        lambda: session.run(None, feed)[0],
        _error(data),
        release=lambda: session.run(None, feed, shrinking),
    )


def _scipy(data: Data) -> Entry:
    _no_divergence(data)
    if data.case.wants == "gradient":
        raise CannotRun("no gradients")
    if data.case.dtype is BFLOAT16:
        raise CannotRun("no bfloat16")
    special = import_module("scipy.special")
    logits, labels = data.logits, np.expand_dims(data.labels, 1)

    def call() -> Any:
        log_probs = special.log_softmax(logits, axis=1)
        return -np.take_along_axis(log_probs, labels, 1).mean(dtype=np.float64)

    return Entry(call, _error(data))


OURS = Contestant("lossd", "numba", _ours)
READ = Contestant("plain read", "numba", _plain_read)
EXPONENTIALS = Contestant("exponentials", "numba", _exponentials)
EAGER = Contestant("PyTorch eager", "torch", _eager)
COMPILED = Contestant("torch.compile", "torch", _compiled)
PEERS = (
    EAGER,
    COMPILED,
    Contestant("JAX jit", "jax", _jax),
    Contestant("onnxruntime", "onnxruntime", _onnxruntime),
    Contestant("SciPy", "scipy", _scipy),
)
CONTESTANTS = (OURS, READ, EXPONENTIALS, *PEERS)
