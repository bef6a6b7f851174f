"""The explanation, as each format carries it."""

from __future__ import annotations

import numpy as np

from tests.service import wire
from tests.service.cases import worked
from tests.service.conftest import Client


def test_explain_answers_in_every_format(client: Client) -> None:
    body = wire.npz_body(worked())
    natural = client.send("/v1/explain", body, wire.NPZ, accept=wire.JSON).json()
    routes = natural.pop("routes")
    flat = natural | {f"routes.{name}": value for name, value in routes.items()}
    for media_type in (wire.NPZ, wire.SAFETENSORS):
        answered = wire.tensors_of(client.send("/v1/explain", body, wire.NPZ, accept=media_type))
        assert answered.keys() == flat.keys()
        for name, array in answered.items():
            np.testing.assert_array_equal(np.asarray(flat[name], array.dtype), array)
    assert routes["largest_difference"] <= 1e-6 * routes["cross_entropy"]
