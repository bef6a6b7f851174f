"""Operations that routes compute, the service that computes them, and calls of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from kernels import dtypes
from kernels.dtypes import FLOATS, DType
from kernels.steps import Footprint, Work
from service import options
from service.codecs import Codec, Limits, Message
from service.codecs.base import (
    INTEGERS,
    LOGITS,
    TARGETS,
    TENSORS,
    WEIGHTS,
    Answer,
    Array,
    Arrays,
    numbers,
    shown,
)
from service.codecs.naming import meant
from service.compute.compiler import Compiler
from service.compute.device import Compute, Device
from service.compute.lane import Lane
from service.errors import MissingTensor, NotAcceptable, TooLarge
from service.memory.budget import Budget
from service.request.given import combine
from service.request.offered import check_dtypes, offered_dtypes
from service.settings import Settings
from service.telemetry.entry import BEGAN, WORK
from service.telemetry.record import sizes


class Document(NamedTuple):
    """Answer that is one JSON document: the ``output`` that has its bytes, and its ``members``.

    ``arrays`` are the outputs beside it in binary answers. Both map names to descriptions.
    """

    output: str
    members: Mapping[str, str]
    arrays: Mapping[str, str]


class Operation(NamedTuple):
    """Operation of one route.

    ``needs`` and ``takes`` name its tensors, those it must have, the logits first, and those it
    may, of which ``sized`` may be as large as the logits; ``compute`` checks them and the options,
    and gives the work that makes the outputs; ``footprint`` says from their shapes what memory that
    takes, where it can be streamed; ``limit`` picks from the settings how many elements the logits
    may have, where that is limited. ``document``: the whole answer, where that is JSON, which
    ``in_json`` then makes without the other outputs.
    """

    path: str
    summary: str
    description: str
    needs: tuple[str, ...]
    options: type[options.Options]
    compute: Compute
    takes: tuple[str, ...] = ()
    sized: tuple[str, ...] = ()
    footprint: Callable[[dict[str, Any]], Footprint] | None = None
    limit: Callable[[Settings], int] | None = None
    document: Document | None = None
    in_json: Operation | None = None

    def answering(self, reply: Codec) -> Operation:
        """The operation that answers in ``reply``'s format."""
        return self.in_json if self.in_json is not None and reply.typed else self


@dataclass(slots=True)
class Service:
    """Service of a process, as long as it lives: settings, memory, threads, the device.

    ``compute`` runs what is not over at once; ``transcode`` decodes, checks and encodes what would
    hold up the loop; ``compiler`` makes kernels that were not made at the start. ``limits`` and the
    dtypes ``offered`` follow from the settings, once for all requests. ``why_not_ready``
    is said to clients while it is not ``ready``.
    """

    settings: Settings
    budget: Budget
    compute: Lane
    transcode: Lane
    compiler: Compiler
    device: Device = field(default_factory=Device)
    ready: bool = False
    why_not_ready: str = "the kernels are being compiled"
    limits: Limits = field(init=False)
    offered: tuple[DType, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.limits = Limits(self.settings.max_decoded_bytes)
        self.offered = offered_dtypes(self.settings)


class Call(NamedTuple):
    """Call of an operation: formats of its body and reply; ``query``: options of its address.

    ``entry`` is what is counted of the request that it serves (``service.telemetry.entry``).
    """

    service: Service
    operation: Operation
    codec: Codec
    reply: Codec
    query: Mapping[str, str]
    entry: list[int]

    def decoded(self, body: memoryview, until: float = math.inf) -> Message:
        """Decode a body, whose tensors are all that the operation takes.

        Raises as the codec, and ``TakesLong`` after ``until``, as ``perf_counter`` counts.
        """
        limits = Limits(self.service.limits.decoded_bytes, until)
        message = self.codec.decode(body, TENSORS, limits)
        check_tensors(self.operation, message, self.service.settings)
        check_dtypes(message.tensors, self.service.offered)
        return message

    def work(self, message: Message, step: int | None = None) -> Work:
        """Check a message, and return the work on it; raises ``InvalidInput``."""
        tensors = {name: numbers(array) for name, array in message.tensors.items()}
        operation, chosen, device = self.operation, self._options(message), self.service.device
        work = device.work(operation.compute, tensors, chosen, step)
        name = device.name if chosen.device == "auto" else chosen.device
        logits = tensors[operation.needs[0]]
        axis = getattr(chosen, "class_axis", None)
        self.entry[WORK:BEGAN] = sizes(logits.shape, logits.dtype, axis, name)
        return work

    def footprint(self, message: Message, step: int) -> Footprint | None:
        """Memory that the work on ``message`` takes, none of whose tensors has come.

        None where that cannot be told from shapes and types. Raises ``InvalidInput``.
        """
        operation = self.operation
        present = (*operation.needs, *(name for name in operation.sized if name in message.tensors))
        tensors = {name: message.tensors[name] for name in present}
        if operation.footprint is None or converted_bytes(operation, tensors):
            return None
        if "chosen" in message.tensors:  # of which the shape alone is known, and class 0 is one
            tensors["chosen"] = np.broadcast_to(np.int64(0), message.tensors["chosen"].shape)
        chosen = self._options(message)
        device = self.service.device.named(chosen)
        return operation.footprint({**tensors, **vars(chosen), "device": device, "step": step})

    def converted_bytes(self, message: Message) -> int:
        """Bytes, at most, that ``work`` copies or converts before any work starts."""
        shift = getattr(self._options(message), "shift", 0)
        return converted_bytes(self.operation, message.tensors, shift)

    def _options(self, message: Message) -> options.Options:
        model, typed = self.operation.options, self.codec.typed
        return combine(model, self.query, message.options, typed=typed)

    def encoded_bytes(self, outputs: Arrays) -> int:
        """Bytes, at most, that ``encoded`` allocates besides ``outputs``."""
        document = self._document(outputs)
        if document is not None:
            return document.nbytes
        return self.reply.encoded_bytes(outputs)

    def encoded(self, outputs: Arrays) -> Answer:
        """Encode the answer; raises ``NotAcceptable`` for more numbers than the settings allow."""
        document = self._document(outputs)
        if document is not None:
            return document.tobytes()
        count = self.reply.text_numbers(outputs)
        limit = self.service.settings.max_json_answer_elements
        if count > limit:
            raise NotAcceptable(
                f"the answer holds {count:,} numbers, and JSON at most {limit:,}:"
                f" {self.reply.binary_advice}",
                field=self.reply.answer_field,
            )
        return self.reply.encode(outputs)

    def _document(self, outputs: Arrays) -> Array | None:
        """The output that is the whole answer, already written."""
        document = self.operation.document
        return outputs[document.output] if document is not None and self.reply.typed else None


def check_tensors(operation: Operation, message: Message, settings: Settings) -> None:
    """Raise ``MissingTensor`` or ``TooLarge`` unless ``operation`` takes just these tensors."""
    known = operation.needs + operation.takes
    if message.tensors.keys() - known or not message.tensors.keys() >= set(operation.needs):
        raise _misfit(operation, message)
    if operation.sized and not TARGETS & message.tensors.keys():
        _hint_at_targets(operation, message)
    if operation.limit is not None:
        name, most = operation.needs[0], operation.limit(settings)
        size = message.tensors[name].size
        if size > most:
            raise TooLarge(
                f"{operation.path} takes {name} of at most {most:,} elements, not {size:,}",
                where=name,
            )


def _misfit(operation: Operation, message: Message) -> MissingTensor:
    uses = ", ".join((*operation.needs, *(f"{name} (optional)" for name in operation.takes)))
    for name in operation.needs:
        if name not in message.tensors:
            return MissingTensor(
                f"{name} is missing: {operation.path} takes {uses}{_instead(name, message)}",
                field=name,
            )
    name = next(iter(message.tensors.keys() - {*operation.needs, *operation.takes}))
    return MissingTensor(f"{operation.path} has no use for {name}: it takes {uses}", field=name)


def _hint_at_targets(operation: Operation, message: Message) -> None:
    """Raise ``MissingTensor`` where targets may be there by another name."""
    for name in operation.takes:
        if hint := _instead(name, message):
            raise MissingTensor(f"{operation.path} takes a teacher{hint}", field=name)


def _instead(missing: str, message: Message) -> str:
    """Hint at what the tensor ``missing`` may be called in ``message``."""
    for name in message.options:
        if meant(name, (missing,)):
            return f"; there is {shown(name)}, is it {missing}?"
    other = LOGITS - {missing}
    if missing in LOGITS and other & message.tensors.keys():
        name = next(iter(other))
        routes = {"logits": "/v1/cross_entropy", "log_probs": "/v1/nll_loss"}
        return f"; there are {name}, which are for {routes[name]}"
    return ""


def converted_bytes(operation: Operation, tensors: Arrays, shift: int = 0) -> int:
    """Bytes, at most, that ``operation.compute`` copies or converts before any work starts.

    Weights become float64, by way of float32 or bytes, and are looked through for what is not
    finite; those that broadcast may take one for each logit. Labels are laid out in one dimension,
    and probabilities of another width than the logits are made like them. Masked labels, and those
    moved by a ``shift``, are new, as int64 at most; weights are moved with them. Nothing may lie
    across its natural addresses, and what has no class axis is read in C order.
    """
    logits, broadcasts = tensors[operation.needs[0]], "pos_weight" in operation.takes
    total = 0
    for name, array in tensors.items():
        if name in WEIGHTS:
            total += array.size * (8 + 4 + 1 + (8 if shift else 0))
            if broadcasts and (array.ndim > 1 or name == "sample_weight"):
                total += logits.size * 8
        elif name in INTEGERS:
            total += array.size * (8 + 8 + 1)
        elif name == "labels" and array.shape == logits.shape and dtypes.of(array) in FLOATS:
            total += array.size * (8 + 4) if (array.itemsize == 8) != (logits.itemsize == 8) else 0
        elif name == "labels":
            total += array.size * 8 if shift else 0
            total += 0 if array.flags.c_contiguous else array.nbytes
        elif name in TARGETS:
            wide = logits.itemsize == 8
            if name not in operation.sized or wide != (array.itemsize == 8):
                total += array.size * (4 if name in operation.sized and not wide else 8 + 4)
        if broadcasts and name in ("logits", "labels") and not array.flags.c_contiguous:
            total += array.nbytes
        if not array.flags.aligned:
            total += array.nbytes
    return total
