"""V2 inference as a client: the request for a piece's outputs, and its answer, which is checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from kernels import InvalidInput, dtypes, mismatch
from kernels.plan import PER_POSITION
from kernels.problem import Problem
from service.codecs.base import Array, flat_bytes, row_of

MODEL = "cross_entropy"
PATH = f"/v2/models/{MODEL}/infer"
HEADER_LENGTH = "Inference-Header-Content-Length"
# Outputs that are the kernels' losses and weights, as they are added.
TERMS = {"losses": "loss_float64", "weights": "loss_weight"}
# Options of a problem that a request gives as they are.
_OPTIONS = (
    "ignore_index",
    "label_smoothing",
    "temperature",
    "softcap",
    "z_loss",
    "check_probabilities",
)
# Bytes of the body that are sent at a time, and of an answer's JSON, at most.
_CHUNK, _MOST_JSON = 1 << 20, 1 << 16


class WrongAnswer(Exception):
    """Answer that is none to the request: its text says in what."""


class Request(NamedTuple):
    """Request for arrays of ``shape``: its JSON, the tensors behind it, and the arrays' dtypes."""

    text: bytes
    tensors: tuple[memoryview, ...]
    shape: tuple[int, ...]
    arrays: Mapping[str, np.dtype[Any]]

    @property
    def headers(self) -> dict[str, str]:
        length = len(self.text) + sum(tensor.nbytes for tensor in self.tensors)
        return {HEADER_LENGTH: str(len(self.text)), "Content-Length": str(length)}

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each array in the answer."""
        count = int(np.prod(self.shape, dtype=np.int64))
        return {name: count * dtype.itemsize for name, dtype in self.arrays.items()}

    @property
    def most(self) -> int:
        """Bytes of the answer, at most."""
        return _MOST_JSON + sum(self.sizes.values())

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The body, a piece at a time: views of the tensors."""
        yield self.text
        for tensor in self.tensors:
            for start in range(0, tensor.nbytes, _CHUNK):
                yield tensor[start : start + _CHUNK]


def request_of(problem: Problem, names: Iterable[str]) -> Request:
    """Request for those of the arrays ``names`` that have a value a position.

    Labels and weights are sent as the kernels take them: moved and masked. A server computes it on
    its CPU, whose bits are those of this machine's. Raises ``InvalidInput`` for logits in an order
    that the protocol cannot say.
    """
    tensors, axis = _tensors(problem)
    blobs = {name: flat_bytes(array) for name, array in tensors.items()}
    arrays = {
        name: np.dtype(problem.dtype.result if PER_POSITION[name] is None else PER_POSITION[name])
        for name in names
        if name in PER_POSITION
    }
    said = {
        "parameters": {
            **{name: getattr(problem, name) for name in _OPTIONS},
            "class_axis": axis,
            "device": "cpu",
        },
        "inputs": [
            {
                "name": name,
                "datatype": row_of(name, array).v2,
                "shape": array.shape,
                "parameters": {"binary_data_size": blobs[name].nbytes},
            }
            for name, array in tensors.items()
        ],
        "outputs": [
            {"name": TERMS.get(name, name), "parameters": {"binary_data": True}} for name in arrays
        ],
    }
    shape = mismatch.without(tensors["logits"].shape, axis)
    return Request(orjson.dumps(said), tuple(blobs.values()), shape, arrays)


def _tensors(problem: Problem) -> tuple[dict[str, Array], int]:
    """Tensors of a request, in the order in which they are sent, and the axis of the classes.

    There may be one position more than the problem has.
    """
    logits, axis = problem.logits.view(problem.dtype.numpy), problem.axis
    labels, soft = problem.labels, problem.soft
    if soft is not None:
        labels = soft.view(next(row.numpy for row in dtypes.FLOATS if row.load == soft.dtype))
    assert labels is not None
    # Another order of the classes in memory is another order of additions.
    fortran = _is_fortran(logits)
    if (fortran and logits.ndim != 2) or (soft is not None and _is_fortran(labels) != fortran):
        raise InvalidInput(
            f"logits of shape {logits.shape}, or their probabilities, are in Fortran order, and"
            " servers take them in C order, whose sums may have other last bits: score them without"
            " servers",
            field="logits",
        )
    tensors = {"labels": labels.reshape(problem.shape) if soft is None else labels}
    if problem.sample_weight is not None:
        tensors["sample_weight"] = problem.sample_weight.reshape(problem.shape)
    if fortran:
        if len(logits) == 1:  # alone, its classes would be neighbours
            logits = np.repeat(logits, 2, 0)
            tensors = {name: np.repeat(array, 2, 0) for name, array in tensors.items()}
        logits, axis = logits.T, 0
        tensors |= {} if soft is None else {"labels": tensors["labels"].T}
    if problem.weight is not None:
        tensors["weight"] = problem.weight
    # Logits come last: a server computes them as they arrive.
    return {**tensors, "logits": logits}, axis


def _is_fortran(array: Array) -> bool:
    return not array.flags.c_contiguous and abs(array.strides[0]) < abs(array.strides[-1])


def arrays_of(request: Request, header_length: str | None, body: bytes) -> dict[str, Array]:
    """Arrays in an answer to ``request``, flat, by name. Raises ``WrongAnswer``."""
    if header_length is None or not header_length.isdecimal() or int(header_length) > len(body):
        raise WrongAnswer(f"its {HEADER_LENGTH} is {header_length}, of {len(body)} bytes")
    at = int(header_length)
    try:
        described = [
            (
                output["name"],
                output["datatype"],
                tuple(output["shape"]),
                output["parameters"]["binary_data_size"],
            )
            for output in orjson.loads(body[:at])["outputs"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise WrongAnswer(f"its JSON is none of an inference ({error!r:.100})") from None
    sizes = request.sizes
    wanted = [
        (TERMS.get(name, name), row_of(name, np.empty(0, dtype)).v2, request.shape, sizes[name])
        for name, dtype in request.arrays.items()
    ]
    if described != wanted:
        raise WrongAnswer(f"it has {described!r:.300}, and was asked for {wanted!r:.300}")
    if len(body) - at != sum(sizes.values()):
        raise WrongAnswer(f"{len(body) - at} bytes of tensors, not the {sum(sizes.values())} asked")
    found = {}
    for name, dtype in request.arrays.items():
        found[name] = np.frombuffer(body, dtype, sizes[name] // dtype.itemsize, at)
        at += sizes[name]
    return found
