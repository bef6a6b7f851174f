"""NVIDIA's asyncio client, unmodified: what it does otherwise than the blocking one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http.aio as triton
from tritonclient.utils import InferenceServerException

from tests.contract.tensors import LOGITS, MODELS, asking, expected, given, same
from tests.service.shared import region


@pytest.fixture
async def client(address: str) -> AsyncIterator[Any]:
    async with triton.InferenceServerClient(address) as opened:
        yield opened


async def test_everything_that_is_asked_beside_inference(client: Any) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert (await client.get_server_metadata())["name"] == "lossd"
    index = await client.get_model_repository_index()
    assert [entry["name"] for entry in index] == MODELS
    for name in MODELS:
        assert await client.is_model_ready(name)
        assert (await client.get_model_metadata(name))["name"] == name
        assert (await client.get_model_config(name))["name"] == name
        [found] = (await client.get_inference_statistics(name))["model_stats"]
        assert found["name"] == name
    assert not await client.is_model_ready("other")
    for call in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="cannot be loaded") as caught:
            await call("softmax")
        assert caught.value.status() == "501"
    assert await client.get_cuda_shared_memory_status() == []
    await client.unregister_cuda_shared_memory()


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("name", MODELS)
async def test_inference(client: Any, name: str, binary_in: bool, binary_out: bool | None) -> None:
    wanted = expected(name, given(name))
    outputs = None
    if binary_out is not None:
        outputs = [triton.InferRequestedOutput(key, binary_data=binary_out) for key in wanted]
    inputs = asking(triton, given(name), binary_in)
    result = await client.infer(name, inputs, outputs=outputs, request_id="7")
    assert result.get_response()["id"] == "7"
    for key, array in wanted.items():
        assert same(result.as_numpy(key), array)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_compression(client: Any, coding: str) -> None:
    logits = np.tile(LOGITS, (100, 1))
    result = await client.infer(
        "softmax",
        asking(triton, {"logits": logits}),
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    assert same(result.as_numpy("probs"), expected("softmax", {"logits": logits})["probs"])


async def test_many_at_once(client: Any) -> None:
    wanted = expected("softmax", given("softmax"))["probs"]
    inputs = asking(triton, given("softmax"))
    for result in await asyncio.gather(*(client.infer("softmax", inputs) for _ in range(50))):
        assert same(result.as_numpy("probs"), wanted)


async def test_errors_are_told(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="labels is missing") as caught:
        await client.infer("cross_entropy", asking(triton, {"logits": LOGITS}))
    assert caught.value.status() == "422"
    with pytest.raises(InferenceServerException, match="no model 'other'") as caught:
        await client.infer("other", asking(triton, {"logits": LOGITS}))
    assert caught.value.status() == "404"


async def test_shared_memory(client: Any) -> None:
    with region(LOGITS.tobytes()) as path:
        await client.register_system_shared_memory("aio", path.name, LOGITS.nbytes)
        [found] = await client.get_system_shared_memory_status("aio")
        assert found["byte_size"] == LOGITS.nbytes
        entry = triton.InferInput("logits", list(LOGITS.shape), "FP32")
        entry.set_shared_memory("aio", LOGITS.nbytes)
        result = await client.infer("softmax", [entry])
        await client.unregister_system_shared_memory("aio")
    assert same(result.as_numpy("probs"), expected("softmax", {"logits": LOGITS})["probs"])
