"""Shared memory through tritonclient, as it makes and registers it."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, shared_memory

from service.codecs.base import row_of
from tests.contract.tensors import LABELS, LOGITS, Array, asking, expected, given, same
from tests.service.shared import region

WANTED = expected("cross_entropy", given("cross_entropy"))


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with triton.InferenceServerClient(address, network_timeout=120) as made:
        yield made
        made.unregister_system_shared_memory()


@contextmanager
def shared(client: Any, size: int) -> Iterator[tuple[str, Any]]:
    """A registered region, made as tritonclient makes them: its name, and the client's handle."""
    name = f"lossd-{uuid.uuid4().hex[:12]}"
    handle = shared_memory.create_shared_memory_region(name, f"/{name}", size)
    try:
        client.register_system_shared_memory(name, f"/{name}", size)
        yield name, handle
    finally:
        # Warns if somebody else has unlinked it, which here would be an error.
        shared_memory.destroy_shared_memory_region(handle)


def from_region(name: str, tensor: str, array: Array, datatype: str, offset: int) -> Any:
    made = triton.InferInput(tensor, list(array.shape), datatype)
    made.set_shared_memory(name, array.nbytes, offset)
    return made


def into_region(name: str, output: str, size: int, offset: int) -> Any:
    made = triton.InferRequestedOutput(output)
    made.set_shared_memory(name, size, offset)
    return made


def test_registering(client: Any) -> None:
    client.unregister_system_shared_memory()
    assert client.get_system_shared_memory_status() == []
    with shared(client, 64) as (name, _), shared(client, 32) as (other, _):
        entry = {"name": name, "key": f"/{name}", "offset": 0, "byte_size": 64}
        assert client.get_system_shared_memory_status(name) == [entry]
        status = client.get_system_shared_memory_status()
        assert [found["name"] for found in status] == [name, other]
        for key, size, offset, text in (
            (name, 65, 0, "does not have"),
            (name, 8, 60, "does not have"),
            ("/../etc/passwd", 8, 0, "not a path"),
            ("not-there", 8, 0, "cannot be opened"),
        ):
            with pytest.raises(InferenceServerException, match=text) as caught:
                client.register_system_shared_memory("x", f"/{key}", size, offset)
            assert caught.value.status() == "400"
        with pytest.raises(InferenceServerException, match="registered already"):
            client.register_system_shared_memory(name, f"/{name}", 64)
        client.unregister_system_shared_memory(name)
        client.unregister_system_shared_memory(name)
        with pytest.raises(InferenceServerException, match="no shared memory region") as caught:
            client.get_system_shared_memory_status(name)
        assert caught.value.status() == "404"


def test_cuda_memory_is_refused_and_its_cleanup_is_not(client: Any) -> None:
    assert client.get_cuda_shared_memory_status() == []
    client.unregister_cuda_shared_memory()
    client.unregister_cuda_shared_memory("x")
    with pytest.raises(InferenceServerException, match="GPU") as caught:
        client.register_cuda_shared_memory("x", b"handle", 0, 8)
    assert caught.value.status() == "501"


def test_inputs_and_outputs_in_regions(client: Any) -> None:
    with shared(client, 1024) as (name, handle), shared(client, 256) as (target, target_handle):
        shared_memory.set_shared_memory_region(handle, [LOGITS, LABELS])
        inputs = [
            from_region(name, "logits", LOGITS, "FP32", 0),
            from_region(name, "labels", LABELS, "INT64", LOGITS.nbytes),
        ]
        for _ in range(2):
            result = client.infer(
                "cross_entropy",
                inputs,
                outputs=[
                    into_region(target, "per_element", 24, 8),
                    into_region(target, "loss", 8, 0),
                ],
            )
            for output, offset, shape in (("per_element", 8, (6,)), ("loss", 0, (1,))):
                found = result.get_output(output)
                assert found["shape"] == list(shape)
                assert not found.keys() & {"data", "parameters"}
                array = shared_memory.get_contents_as_numpy(
                    target_handle, np.float32, shape, offset
                )
                assert same(array, WANTED[output])
        mixed = [inputs[0], *asking(triton, {"labels": LABELS})]
        result = client.infer(
            "cross_entropy", mixed, outputs=[triton.InferRequestedOutput("per_element")]
        )
        assert same(result.as_numpy("per_element"), WANTED["per_element"])


def test_what_does_not_fit_is_refused(client: Any) -> None:
    with shared(client, 256) as (name, _):
        labels = asking(triton, {"labels": LABELS})

        def infer(entry: Any, outputs: Any = None) -> Any:
            return lambda: client.infer("cross_entropy", [entry, *labels], outputs=outputs)

        unknown = from_region("unknown", "logits", LOGITS, "FP32", 0)
        beyond = from_region(name, "logits", LOGITS, "FP32", 200)
        wrong = triton.InferInput("logits", [6, 5], "FP32")
        wrong.set_shared_memory(name, 119)
        inside = from_region(name, "logits", LOGITS, "FP32", 0)
        small = [into_region(name, "per_element", 20, 200)]
        nowhere = [into_region("unknown", "per_element", 24, 0)]
        for call, status, text in (
            (infer(unknown), "404", "no shared memory region 'unknown'"),
            (infer(beyond), "400", "has 256 bytes"),
            (infer(wrong), "400", "takes 120 bytes, but 119"),
            (infer(inside, small), "400", "24 bytes are more than the 20"),
            (infer(inside, nowhere), "404", "no shared memory region 'unknown'"),
        ):
            with pytest.raises(InferenceServerException, match=text) as caught:
                call()
            assert caught.value.status() == status


LARGE = np.zeros((512, 32768), np.float32)


def told(request: Any) -> str:
    """Outcome of an inference on ``LARGE``: the error's status and text, or "200"."""
    try:
        result = request()
    except InferenceServerException as error:
        return f"{error.status()} {error.message()}"
    return "200" if np.isclose(result.as_numpy("loss"), np.log(32768)) else "wrong"


def test_a_region_that_shrinks_while_a_request_runs_is_that_requests_error(client: Any) -> None:
    """Memory that is missed before, during or after the computation crashes nothing."""
    labels = asking(triton, {"labels": np.zeros(512, np.int64)})
    inputs = [from_region("shrinking", "logits", LARGE, "FP32", 0), *labels]
    answers = set()
    with region(LARGE.nbytes) as path:
        for milliseconds in range(0, 72, 3):
            os.truncate(path, LARGE.nbytes)
            client.register_system_shared_memory("shrinking", path.name, LARGE.nbytes)
            timer = threading.Timer(milliseconds / 1000, os.truncate, (path, 4096))
            timer.start()
            answers.add(told(lambda: client.infer("cross_entropy", inputs)))
            timer.join()
            answers.add(told(lambda: client.infer("cross_entropy", inputs)))
            client.unregister_system_shared_memory("shrinking")
    error = (
        "400 shared memory region 'shrinking' was made smaller after it was registered:"
        " register it again"
    )
    assert error in answers
    assert answers <= {"200", error}
    assert client.is_server_ready()


def test_a_region_may_be_unregistered_while_a_request_uses_it(client: Any, address: str) -> None:
    labels = asking(triton, {"labels": np.zeros(512, np.int64)})
    inputs = [from_region("leaving", "logits", LARGE, "FP32", 0), *labels]
    answers = set()
    with region(LARGE.nbytes) as path, triton.InferenceServerClient(address) as other:
        for _ in range(6):
            client.register_system_shared_memory("leaving", path.name, LARGE.nbytes)
            request = client.async_infer("cross_entropy", inputs)
            other.unregister_system_shared_memory("leaving")
            answers.add(told(request.get_result))
    # Or it was gone before the request came.
    gone = "404 there is no shared memory region 'leaving': register it first"
    assert answers <= {"200", gone}
    assert client.is_server_ready()


def test_labels_that_are_rewritten_while_they_are_read_are_an_error_or_make_a_loss(
    client: Any,
) -> None:
    rows, classes = 4096, 5
    logits, labels = np.zeros((rows, classes), np.float32), np.zeros(rows, np.int64)
    inputs = asking(triton, {"logits": logits})
    answers, over = set(), threading.Event()

    def rewrite() -> None:
        while not over.is_set():
            for value in (2**62, -5, 3, classes, 0, -(2**63)):
                labels_seen[:] = value

    with region(labels.nbytes) as path:
        client.register_system_shared_memory("rewritten", path.name, labels.nbytes)
        labels_seen = np.memmap(path, np.int64, "r+")
        inputs.append(from_region("rewritten", "labels", labels, "INT64", 0))
        thread = threading.Thread(target=rewrite)
        thread.start()
        try:
            for _ in range(40):
                try:
                    result = client.infer("cross_entropy", inputs)
                    assert np.isclose(result.as_numpy("loss"), np.log(classes))
                    answers.add("200")
                except InferenceServerException as error:
                    answers.add(error.status())
        finally:
            over.set()
            thread.join()
        client.unregister_system_shared_memory("rewritten")
    assert "422" in answers
    assert answers <= {"200", "422"}
    assert client.is_server_ready()


def test_outputs_over_inputs_are_refused(client: Any) -> None:
    with shared(client, 256) as (name, _):
        logits = from_region(name, "logits", LOGITS, "FP32", 0)
        outputs = [into_region(name, "per_element", 24, 116)]
        with pytest.raises(InferenceServerException, match="'per_element' and input 'logits'"):
            client.infer(
                "cross_entropy", [logits, *asking(triton, {"labels": LABELS})], outputs=outputs
            )


def test_a_divergence_of_regions(client: Any) -> None:
    """Both tensors where two processes left them, and the gradient where a third one reads it."""
    teacher = LOGITS[::-1].copy()
    want = expected("kl_div", {"logits": LOGITS, "target_logits": teacher}, ("loss", "gradient"))
    with shared(client, 1024) as (name, handle), shared(client, 256) as (target, target_handle):
        shared_memory.set_shared_memory_region(handle, [LOGITS, teacher])
        inputs = [
            from_region(name, "logits", LOGITS, "FP32", 0),
            from_region(name, "target_logits", teacher, "FP32", LOGITS.nbytes),
        ]
        outputs = [
            into_region(target, "gradient", LOGITS.nbytes, 0),
            triton.InferRequestedOutput("loss"),
        ]
        result = client.infer("kl_div", inputs, outputs=outputs)
        assert same(result.as_numpy("loss"), want["loss"])
        gradient = shared_memory.get_contents_as_numpy(target_handle, np.float32, LOGITS.shape)
        assert same(gradient, want["gradient"])


def test_masks_segments_and_chosen_classes_of_regions(client: Any) -> None:
    """The tensors beside logits and labels, and answers of several types in one region."""
    tensors: dict[str, Array] = {
        "logits": LOGITS,
        "labels": LABELS,
        "mask": np.array([1, 1, 0, 1, 1, 1], np.uint8),
        "segments": np.array([0, 0, 0, 1, 1, 2], np.int32),
        "chosen": np.array([3, 0], np.int64),
    }
    asked = ("sequence_loss", "sequence_count", "top_log_probs", "top_classes", "chosen_log_probs")
    want = expected("cross_entropy", tensors, asked, top_k=3)
    with shared(client, 1024) as (name, handle), shared(client, 1024) as (target, target_handle):
        inputs, places, offset = [], {}, 0
        for tensor, array in tensors.items():
            shared_memory.set_shared_memory_region(handle, [array], offset)
            inputs.append(from_region(name, tensor, array, row_of(tensor, array).v2, offset))
            offset += array.nbytes
        outputs, offset = [], 0
        for output in asked:
            places[output] = offset
            outputs.append(into_region(target, output, want[output].nbytes, offset))
            offset += want[output].nbytes
        client.infer("cross_entropy", inputs, outputs=outputs, parameters={"top_k": 3})
        for output, offset in places.items():
            array = shared_memory.get_contents_as_numpy(
                target_handle, want[output].dtype, want[output].shape, offset
            )
            assert same(array, want[output]), output
