"""Contestants: the kernels, the machine's limits, and other libraries as their users call them.

Peers are imported by name when they are measured: none is needed to install, test or run lossd.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numba
import numpy as np

import kernels
from benchmarks.kernel import divergence, limits, outputs
from benchmarks.kernel.onnx_model import ELEMENT, cross_entropy_model
from benchmarks.kernel.workloads import WORKLOADS, Workload
from benchmarks.machine import THREADS, version
from benchmarks.problems import Array, Data
from kernels.dtypes import BFLOAT16, FLOAT32


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


def _mean_error(data: Data, workload: Workload) -> Callable[[Any], float]:
    """Error function for results that begin with the mean loss of a workload."""
    exact = workload.exact(data)
    return lambda result: abs(float(result[0]) - exact) / max(1.0, abs(exact))


def _workload(data: Data) -> Workload | None:
    return WORKLOADS.get(data.case.wants)


def _plain(data: Data) -> Entry:
    if data.case.wants in outputs.OUTPUTS:
        return Entry(*outputs.loss_alone(data))
    if data.case.wants == "gradient":
        return Entry(lambda: _gradient(data, None), _error(data))
    workload = _workload(data)
    if workload is None:
        raise CannotRun("lossd itself is measured here")
    given = workload.prepare(data)
    return Entry(lambda: workload.plain(*given), lambda loss: 0.0 if np.isfinite(loss) else 1.0)


def _gradient(data: Data, out: Mapping[str, Array] | None) -> tuple[Any, ...]:
    wanted = ("loss", "gradient")
    answers = kernels.cross_entropy(data.logits, data.labels, outputs=wanted, out=out)
    return tuple(answers.values())


def _ours(data: Data) -> Entry:
    numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))
    workload = _workload(data)
    if workload is not None:
        given = workload.prepare(data)
        return Entry(lambda: workload.ours(*given), _mean_error(data, workload))
    logits, labels = data.logits, data.labels
    if data.case.wants in outputs.OUTPUTS:
        return Entry(*outputs.ours(data))
    if data.case.wants == "divergence":
        return Entry(*divergence.ours(data))
    if data.case.wants == "gradient":  # into one array again and again, as a training loop does
        out = {"gradient": np.empty(logits.shape, np.float32)}
        return Entry(lambda: _gradient(data, out), _error(data))
    return Entry(
        lambda: kernels.cross_entropy(logits, labels),
        _error(data),
        lambda: kernels.cross_entropy(logits, labels, reduction="none"),
    )


def _limited(data: Data) -> None:
    """Raise ``CannotRun`` where a case has no limit but Python; else take the threads."""
    if data.logits.nbytes < limits.LEAST:
        raise CannotRun("no limit: calls take longer than the work")
    numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))


def _plain_read(data: Data) -> Entry:
    _limited(data)
    if data.case.wants == "divergence":
        return Entry(*divergence.plain_read(data))
    call, error, times = limits.plain_read(data)
    return Entry(call, error, times=times)


def _exponentials(data: Data) -> Entry:
    _limited(data)
    call, error, times = limits.in_l1(data)
    return Entry(call, error, times=times)


def _only_losses(data: Data) -> None:
    if data.case.wants not in ("loss", "gradient"):
        raise CannotRun("compared with PyTorch alone")


def _torch() -> Any:
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    torch = import_module("torch")
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)  # a no_grad() in each call would take time
    return torch


def _as_torch(torch: Any, array: Array) -> Any:
    if array.dtype == BFLOAT16.numpy:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _torch_workload(
    data: Data, torch: Any, workload: Workload, compiled: Callable[[Any], Any]
) -> Entry:
    given = [_as_torch(torch, array) for array in workload.prepare(data)]
    function = compiled(partial(workload.torch, torch))
    return Entry(lambda: function(*given), _mean_error(data, workload))


def _torch_entry(data: Data, torch: Any, function: Any, **options: Any) -> Entry:
    logits, labels = _as_torch(torch, data.logits), _as_torch(torch, data.labels)
    if data.case.wants == "gradient":
        logits.requires_grad_(True)

        def call() -> Any:
            with torch.enable_grad():
                loss = function(logits, labels)
                return loss.detach(), torch.autograd.grad(loss, logits)[0]

        return Entry(call, _error(data))
    return Entry(lambda: function(logits, labels), _error(data), **options)


def _eager(data: Data) -> Entry:
    torch, workload = _torch(), _workload(data)
    if data.case.wants in outputs.OUTPUTS:
        return Entry(*outputs.torch(data, torch, compiled=False))
    if data.case.wants == "divergence":
        return Entry(*divergence.torch(data, torch, compiled=False))
    if workload is not None:
        return _torch_workload(data, torch, workload, lambda function: function)
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
    if data.case.wants in outputs.OUTPUTS:
        return Entry(*outputs.torch(data, torch, compiled=True))
    if data.case.wants == "divergence":
        return Entry(*divergence.torch(data, torch, compiled=True))
    workload = _workload(data)
    if workload is not None:
        return _torch_workload(data, torch, workload, partial(torch.compile, dynamic=False))
    function = torch.compile(
        lambda logits, labels: torch.nn.functional.cross_entropy(logits, labels), dynamic=False
    )
    return _torch_entry(data, torch, function)


def _jax(data: Data) -> Entry:
    _only_losses(data)
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
    _only_losses(data)
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
    _only_losses(data)
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
PLAIN = Contestant("lossd, plain", "numba", _plain)
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
CONTESTANTS = (OURS, PLAIN, READ, EXPONENTIALS, *PEERS)
