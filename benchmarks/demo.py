"""Demonstration (``make demo``): three requests to a server of its own, checked against NumPy.

The client needs NumPy and the standard library only; safetensors bodies are made and read by the
service's own codec.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any

import numpy as np

from benchmarks.server import running
from kernels.dtypes import BFLOAT16
from service.codecs import Limits
from service.codecs import safetensors as safetensors_codec
from service.codecs.safetensors import CODEC as SAFETENSORS

Array = np.ndarray[Any, Any]

_ANSWERS = frozenset({"loss", "per_element", "count", "weight_sum", "loss_sum", "log_probs"})
_LIMITS = Limits(decoded_bytes=2**30)


class Client:
    """A connection to the service; ``seconds``: duration of the last exchange."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(url.removeprefix("http://"))
        self.seconds = 0.0

    def json(self, path: str, **body: Any) -> Any:
        """Send a JSON request; returns the members of its answer."""
        return json.loads(self._post(path, "application/json", json.dumps(body).encode()))

    def tensors(self, path: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Send a safetensors request; returns the arrays of its answer."""
        answer = self._post(path, SAFETENSORS.media_types[0], safetensors_codec.encode(tensors))
        return SAFETENSORS.decode(memoryview(answer), _ANSWERS, _LIMITS).tensors

    def _post(self, path: str, media_type: str, body: bytes) -> bytes:
        started = time.perf_counter()
        self._connection.request("POST", path, body, {"Content-Type": media_type})
        response = self._connection.getresponse()
        answer = response.read()
        self.seconds = time.perf_counter() - started
        if response.status != 200:
            raise RuntimeError(f"{path} answered {response.status}: {answer.decode()}")
        return answer


def worked(client: Client) -> None:
    """Worked example: four rows of five classes, as JSON."""
    logits = [[0, 0, 0, 0, 0], [0, 0, 1, 1, 0], [1, 3, 2, 3, 0], [0, 0, 0, 0, 0]]
    answer = client.json("/v1/cross_entropy", logits=logits, labels=[1, 4, 3, 2])
    _title("the worked example, 4 x 5 as JSON")
    _line("loss", answer["loss"], client.seconds)
    print("  per element   ", " ".join(f"{value:.4f}" for value in answer["per_element"]))
    _check(f"{answer['loss']:.4f}" == "1.5722", "the loss is not 1.5722")


def images(client: Client, random: np.random.Generator) -> None:
    """Image segmentation: three ways to one loss, and a wrong one that swaps height and width."""
    logits = random.standard_normal((4, 3, 256, 256), np.float32)
    labels = random.integers(0, 3, (4, 256, 256))
    _title("a prediction for each pixel, 4 x 3 x 256 x 256 float32 as safetensors")

    log_probs = client.tensors("/v1/log_softmax", {"logits": logits})["log_probs"]
    one_hot = np.eye(3)[labels]
    formula = -float((np.moveaxis(one_hot, -1, 1) * log_probs).sum()) / labels.size
    _line("formula", formula, client.seconds, "-sum(one_hot * log_softmax) / n")
    nll = client.tensors("/v1/nll_loss", {"log_probs": log_probs, "labels": labels})["loss"].item()
    _line("nll_loss", nll, client.seconds, "of log_softmax")
    fused = client.tensors("/v1/cross_entropy", {"logits": logits, "labels": labels})
    loss = fused["loss"].item()
    _line("cross_entropy", loss, client.seconds)
    routes = (formula, nll, loss)
    spread = (max(routes) - min(routes)) / loss
    print(f"  the three agree to {spread:.1e} of the loss")
    _check(spread <= 1e-6, "the routes differ")

    swapped = -float((np.swapaxes(one_hot, 1, 3) * log_probs).sum()) / labels.size
    print(f"  swapaxes(1, 3) in place of moveaxis(-1, 1): {swapped:.6f}, which is wrong")
    _check(
        abs(swapped - loss) > 1e-4 * loss, "the wrong route is not to be told from the right one"
    )


def language_model(client: Client, random: np.random.Generator) -> None:
    """Next-token predictions in bfloat16, made by cutting float32 to its upper 16 bits."""
    rows, vocabulary = 1024, 32000
    numbers = random.standard_normal((rows, vocabulary), np.float32)
    bits = (numbers.view("<u4") >> 16).astype("<u2")
    labels = random.integers(0, vocabulary, rows)
    request = {"logits": bits.view(BFLOAT16.numpy), "labels": labels}
    _title(f"a language model's batch, {rows} x {vocabulary} bfloat16 as safetensors")
    for name in ("loss", "loss, again"):
        loss = client.tensors("/v1/cross_entropy", request)["loss"].item()
        _line(name, loss, client.seconds, f"{bits.nbytes / client.seconds / 1e9:.2f} GB/s")

    exact = 0.0
    for row, label in zip(bits, labels, strict=True):
        values = (row.astype("<u4") << 16).view("<f4").astype(np.float64)
        exact += np.log(np.exp(values).sum()) - values[label]
    exact /= rows
    print(f"  NumPy in float64: {exact:.6f}, {abs(loss - exact) / exact:.1e} of it away")
    _check(abs(loss - exact) <= 1e-6 * exact, "the loss is not NumPy's")


def _title(text: str) -> None:
    print(f"\n{text}")


def _line(name: str, value: float, seconds: float, note: str = "") -> None:
    print(f"  {name:<14} {value:.6f}  {seconds * 1000:8.1f} ms  {note}".rstrip())


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(f"lossd: {otherwise}")


def main() -> int:
    """Run the three examples against a server of its own; returns 0, or exits with a message."""
    random = np.random.default_rng(0)
    print("starting the service; the first start compiles the kernels", flush=True)
    started = time.perf_counter()
    with running("--log-level", "warning") as url:
        print(f"ready on {url} after {time.perf_counter() - started:.1f} s")
        client = Client(url)
        worked(client)
        images(client, random)
        language_model(client, random)
    print("\nstopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
