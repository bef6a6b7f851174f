"""Answers of the loss routes, in every format, and their errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernels
from kernels import dtypes
from kernels.plan import TABLE, outputs_of
from service.routes.losses import OPERATIONS
from tests import zoo
from tests.service import wire
from tests.service.cases import ANSWERS, FORMATS, LABELS, LOGITS, WEIGHT, tensors_for, worked
from tests.service.conftest import Client


@pytest.mark.parametrize("accept", [None, *FORMATS])
@pytest.mark.parametrize("sent", FORMATS)
@pytest.mark.parametrize("path", ANSWERS)
def test_every_route_takes_and_answers_every_format(
    client: Client, path: str, sent: str, accept: str | None
) -> None:
    body = wire.BODIES[sent](tensors_for(path))
    headers = {} if accept is None else {"accept": wire.MEDIA_TYPES[accept]}
    response = client.send(path, body, wire.MEDIA_TYPES[sent], **headers)
    assert response.headers["content-type"] == wire.MEDIA_TYPES[accept or sent]
    answered = wire.tensors_of(response)
    assert answered.keys() == ANSWERS[path]
    reference = wire.tensors_of(
        client.send(path, wire.npz_body(tensors_for(path)), wire.NPZ, accept=wire.NPZ)
    )
    for name, array in reference.items():
        assert array.shape == answered[name].shape
        np.testing.assert_array_equal(answered[name].astype(array.dtype), array)


def test_options_in_the_query_the_body_and_the_metadata_do_the_same(client: Client) -> None:
    tensors, options = worked(), {"reduction": "sum", "label_smoothing": "0.25"}
    typed = b',"reduction":"sum","label_smoothing":0.25}'
    answers = [
        client.post("/v1/cross_entropy", params=params, content=body, headers=headers)
        for params, body, media_type in (
            (options, wire.json_body(tensors), wire.JSON),
            ({}, wire.json_body(tensors)[:-1] + typed, wire.JSON),
            (options, wire.safetensors_body(tensors), wire.SAFETENSORS),
            ({}, wire.safetensors_body(tensors, options | {"format": "np"}), wire.SAFETENSORS),
            (options, wire.npz_body(tensors), wire.NPZ),
            (options, wire.npz_body(tensors, compressed=True), wire.NPZ),
        )
        for headers in ({"content-type": media_type, "accept": wire.NPZ},)
    ]
    assert len({answer.content for answer in answers}) == 1
    assert wire.tensors_of(answers[0])["loss"] != 0


@pytest.mark.parametrize("sent", FORMATS)
@pytest.mark.parametrize("name", ["weight", "sample_weight"])
def test_weights_may_be_boolean(client: Client, sent: str, name: str) -> None:
    shape = WEIGHT.shape if name == "weight" else LABELS.shape
    mask = np.arange(np.prod(shape)).reshape(shape) % 3 != 1
    losses = [
        wire.tensors_of(client.send("/v1/cross_entropy", body, wire.MEDIA_TYPES[sent]))["loss"]
        for weights in (mask, mask.astype(np.float32))
        for body in (wire.BODIES[sent]({**worked(), name: weights}),)
    ]
    assert losses[0] == losses[1]
    for other in ("labels", "logits"):
        body = wire.BODIES[sent]({**worked(), other: np.ones_like(LABELS, bool)})
        wire.problem_of(client.send("/v1/cross_entropy", body, wire.MEDIA_TYPES[sent]), 400)


def test_optional_members_of_a_json_body_may_be_null(client: Client) -> None:
    operation = next(item for item in OPERATIONS if item.path == "/v1/cross_entropy")
    optional = [*operation.takes, *operation.options.model_fields, "dtype"]
    tensors: dict[str, Any] = {"logits": [[1, 3, 2]], "labels": [2]}
    answers = {
        client.post("/v1/cross_entropy", json={**tensors, **nulls}).text
        for nulls in ({}, dict.fromkeys(optional), *({name: None} for name in optional))
    }
    assert len(answers) == 1
    for name in tensors:
        response = client.post("/v1/cross_entropy", json={**tensors, name: None})
        assert f"{name} is missing" in wire.problem_of(response, 422)["detail"]


def test_notes_in_a_files_metadata_are_no_options(client: Client) -> None:
    notes = {"format": "pt", "epoch": "3", "loss": "0.3"}
    for metadata, status in ((notes, 200), (notes | {"reducton": "sum"}, 422)):
        body = wire.safetensors_body(worked(), metadata)
        response = client.send("/v1/cross_entropy", body, wire.SAFETENSORS)
        assert response.status_code == status, response.text
    assert wire.problem_of(response, 422)["field"] == "reducton"


def test_outputs_are_those_asked_for(client: Client) -> None:
    body = wire.npz_body(worked())
    for outputs in ("loss", "per_element"):
        response = client.send(f"/v1/cross_entropy?outputs={outputs}", body, wire.NPZ)
        assert wire.tensors_of(response).keys() == {outputs}
    none = wire.tensors_of(client.send("/v1/cross_entropy?reduction=none", body, wire.NPZ))
    np.testing.assert_array_equal(none["loss"], none["per_element"])
    assert none["loss"].shape == LABELS.shape


SCALED = {"temperature": 2.0, "softcap": 5.0}
EVERY = {"z_loss": 1e-3, "label_smoothing": 0.1, "ignore_index": 2, "reduction": "sum", **SCALED}
SAMPLES = np.random.default_rng(13).random(LABELS.shape)


@pytest.mark.parametrize("dtype", [dtypes.FLOAT32, dtypes.BFLOAT16], ids=lambda row: row.name)
@pytest.mark.parametrize("sent", FORMATS)
def test_every_option_and_output_is_the_kernels(
    client: Client, sent: str, dtype: dtypes.DType
) -> None:
    tensors = worked(dtype) | {"sample_weight": zoo.cast(SAMPLES, dtype)}
    options = {**EVERY, "softcap": 5.0 if dtype in zoo.WITH_SOFTCAP else None}
    query = "&".join(f"{name}={value}" for name, value in options.items() if value is not None)
    names = zoo.compiled(zoo.outputs(), dtype, capped=True)
    path = f"/v1/cross_entropy?{query}&outputs={','.join(names)}"
    body = wire.BODIES[sent](tensors)
    response = client.send(path, body, wire.MEDIA_TYPES[sent], accept=wire.NPZ)
    answered = wire.tensors_of(response)
    arguments: dict[str, Any] = {**tensors, **options, "outputs": names}
    expected = kernels.cross_entropy(**arguments)
    assert list(answered) == names
    for name, array in expected.items():
        assert answered[name].dtype == array.dtype
        np.testing.assert_array_equal(answered[name], array)
    assert (expected["rank"] == -1).any()


SEQUENCES: dict[str, Any] = {
    "logits": np.random.default_rng(3).normal(0, 3, (3, 6, 5)).astype(np.float32),
    "labels": np.random.default_rng(4).integers(0, 5, (3, 6)),
    "mask": np.arange(18).reshape(3, 6) % 5 != 0,
    "segments": np.arange(18).reshape(3, 6) % 6 // 2,
}
OF_SEQUENCES: dict[str, Any] = {"class_axis": -1, "shift": 1, "bytes": 40}


@pytest.mark.parametrize("integers", [np.bool_, np.int64, np.uint8], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("sent", FORMATS)
def test_sequences_have_the_kernels_bits_in_every_format(
    client: Client, sent: str, integers: Any
) -> None:
    tensors = {**SEQUENCES, "mask": SEQUENCES["mask"].astype(integers)}
    names = [name for name in kernels.OUTPUTS if TABLE[name].requires in (None, "bytes")]
    query = "&".join(f"{name}={value}" for name, value in OF_SEQUENCES.items())
    path = f"/v1/cross_entropy?{query}&outputs={','.join(names)}"
    body = wire.BODIES[sent](tensors)
    answered = wire.tensors_of(client.send(path, body, wire.MEDIA_TYPES[sent], accept=wire.NPZ))
    expected = kernels.cross_entropy(**tensors, **OF_SEQUENCES, outputs=names)
    for name in names:
        assert answered[name].dtype == expected[name].dtype
        assert answered[name].tobytes() == expected[name].tobytes(), name
    assert answered["sequence_loss"].shape == (3, 3)
    own = {name: tensors[name] for name in tensors if name != "logits"}
    own["log_probs"] = kernels.log_softmax(tensors["logits"], class_axis=-1)
    names = [name for name in outputs_of("nll_loss") if name in names]
    path = f"/v1/nll_loss?{query}&outputs={','.join(names)}"
    body = wire.BODIES[sent](own)
    answered = wire.tensors_of(client.send(path, body, wire.MEDIA_TYPES[sent], accept=wire.NPZ))
    expected = kernels.nll_loss(**own, **OF_SEQUENCES, outputs=names)
    assert all(answered[name].tobytes() == expected[name].tobytes() for name in names)


def test_json_writes_integers_of_masks_and_segments_in_any_way(client: Client) -> None:
    """In short bodies and long ones, as integers, floats without a fraction, and words."""
    logits, found = [[[1, 0], [0, 2], [3, 3]]], set()
    for notes in ("", " " * 2000):
        for mask in ("[[1, 1, 0]]", "[[1.0, 2e0, -0]]", "[[true, true, false]]"):
            for segments in ("[[0, 1, 1]]", "[[0.0, 1, 1e0]]"):
                body = f'{{"logits": {logits}, "labels": [[0, 1, 0]], "class_axis": -1, {notes}'
                body += f'"mask": {mask}, "segments": {segments},'
                body += '"outputs": ["sequence_loss", "sequence_count"]}'
                answer = client.send("/v1/cross_entropy", body.encode(), wire.JSON)
                assert answer.status_code == 200, answer.text
                found.add(answer.text)
    assert len(found) == 1
    assert '"sequence_count":[[1,1]]' in found.pop()


WRONG_SEQUENCES: dict[str, tuple[str, Any, str]] = {
    "mask of another shape": ("mask", [[1, 0]], "mask has shape (1, 2); it must have one element"),
    "mask of fractions": ("mask", [[0.5, 1, 1]], "mask[0][0]: 0.5 is not an integer"),
    "segments of words": ("segments", [[True, 1, 1]], "segments[0][0]: 'true' is neither"),
    "segments out of range": (
        "segments",
        [[0, 9, 1]],
        "segments[0, 1] is 9; segments are num",
    ),
    "shift beyond the length": ("shift", 4, "shift is 4, but labels of shape (1, 3) have 3"),
    "shift of a fraction": ("shift", 0.5, "shift: input should be a valid integer"),
    "bytes of nothing": ("bytes", 0, "bytes: input should be greater than or equal to 1"),
    "no bytes": ("outputs", ["bits_per_byte"], "bits_per_byte needs bytes, which is not given"),
}


@pytest.mark.parametrize("name", WRONG_SEQUENCES)
def test_what_is_wrong_with_sequences_is_said(client: Client, name: str) -> None:
    member, value, text = WRONG_SEQUENCES[name]
    given = {"logits": [[[1, 0], [0, 2], [3, 3]]], "labels": [[0, 1, 0]], "class_axis": -1}
    response = client.post("/v1/cross_entropy", json={**given, member: value})
    problem = wire.problem_of(response, 400 if "not an" in text or "neither" in text else 422)
    assert text in problem["detail"]


def test_samples_are_weighed_without_logits_too(client: Client) -> None:
    tensors: dict[str, Any] = tensors_for("/v1/nll_loss")
    tensors["sample_weight"] = SAMPLES.astype(np.float32)
    answered = wire.tensors_of(client.send("/v1/nll_loss", wire.npz_body(tensors), wire.NPZ))
    assert answered["loss"] == kernels.nll_loss(**tensors)


@pytest.mark.parametrize("name", ["log_softmax", "softmax"])
def test_logits_are_scaled_without_labels_too(client: Client, name: str) -> None:
    logits = worked()["logits"]
    body = wire.npz_body({"logits": logits})
    [answered] = wire.tensors_of(
        client.send(f"/v1/{name}?temperature=2&softcap=5", body, wire.NPZ)
    ).values()
    np.testing.assert_array_equal(answered, getattr(kernels, name)(logits, **SCALED))


def test_whole_numbers_are_written_as_such(client: Client) -> None:
    body = b'{"logits": [[1, 3, 2]], "labels": [2], "outputs": ["rank", "prediction"]}'
    answer = client.send("/v1/cross_entropy", body, wire.JSON)
    assert answer.text == '{"rank":[1],"prediction":[1]}\n'


@pytest.mark.parametrize(
    ("path", "outputs"),
    [(f"/v1/{name}", outputs_of(name)) for name in ("cross_entropy", "nll_loss")],
)
def test_an_output_of_another_route_is_refused_with_those_of_this_one(
    client: Client, path: str, outputs: tuple[str, ...]
) -> None:
    body = wire.npz_body(tensors_for(path))
    problem = wire.problem_of(client.send(f"{path}?outputs=loss,probs", body, wire.NPZ), 422)
    assert problem["field"] == "outputs"
    assert problem["detail"].endswith(f"the outputs here are {', '.join(outputs)}")


def test_numbers_that_json_cannot_write_are_strings(client: Client) -> None:
    body = b'{"logits": [[NaN, 1], ["-Infinity", 0], [1, -Infinity]], "labels": [0, 0, 0]}'
    answered = client.send("/v1/cross_entropy", body, wire.JSON).json()
    assert answered == {
        "loss": "NaN",
        "per_element": ["NaN", "Infinity", 0.0],
        "count": 3,
        "weight_sum": 3.0,
        "loss_sum": "NaN",
    }


@pytest.mark.parametrize("row", dtypes.INTEGERS, ids=lambda row: row.name)
@pytest.mark.parametrize("sent", FORMATS)
@pytest.mark.parametrize("path", ["/v1/cross_entropy", "/v1/nll_loss", "/v1/explain"])
def test_a_label_out_of_range_is_named_with_its_position(
    client: Client, path: str, sent: str, row: dtypes.DType
) -> None:
    # JSON's integers are read as int64: what is larger is refused as it is read.
    largest = min(np.iinfo(row.numpy).max, 2**63 - 1 if sent == "json" else 2**64)
    lowest = np.iinfo(row.numpy).min or 5
    for value in (5, lowest, largest):
        tensors = tensors_for(path) | {"labels": LABELS.astype(row.numpy)}
        tensors["labels"][4, 2] = value
        tensors["labels"][5, 0] = value
        response = client.send(path, wire.BODIES[sent](tensors), wire.MEDIA_TYPES[sent])
        problem = wire.problem_of(response, 422)
        assert (problem["field"], problem["position"]) == ("labels", [4, 2])
        assert str(value) in problem["detail"].replace(",", "")


def test_a_label_of_more_than_64_bits_is_named_with_its_place(client: Client) -> None:
    for label in (2**63, 2**64, -(2**63) - 1, 10**30):
        body = f'{{"logits": [[1, 2], [3, 4]], "labels": [0, {label}]}}'.encode()
        problem = wire.problem_of(client.send("/v1/cross_entropy", body, wire.JSON), 400)
        assert problem["where"] == "labels[1]"


@pytest.mark.parametrize("sent", FORMATS)
@pytest.mark.parametrize(
    ("path", "change", "status", "named"),
    [
        ("/v1/cross_entropy", {"labels": None}, 422, "labels is missing"),
        ("/v1/cross_entropy", {"logits": None}, 422, "logits is missing"),
        ("/v1/nll_loss", {"log_probs": None}, 422, "log_probs is missing"),
        ("/v1/nll_loss", {"logits": LOGITS}, 422, "no use for logits"),
        ("/v1/softmax", {"labels": LABELS}, 422, "no use for labels"),
        ("/v1/cross_entropy", {"labels": LABELS[:5]}, 422, "labels"),
        ("/v1/cross_entropy", {"logits": LOGITS[0]}, 422, "labels"),
        ("/v1/cross_entropy", {"weight": WEIGHT[:4]}, 422, "weight"),
        ("/v1/cross_entropy", {"weight": WEIGHT * np.nan}, 422, "weight"),
        ("/v1/cross_entropy", {"sample_weight": WEIGHT}, 422, "sample_weight"),
        ("/v1/cross_entropy", {"sample_weight": SAMPLES * np.inf}, 422, "sample_weight"),
        ("/v1/softmax", {"sample_weight": SAMPLES}, 422, "no use for sample_weight"),
        ("/v1/nll_loss", {"labels": LOGITS}, 422, "labels"),
        ("/v1/explain", {"labels": LOGITS}, 422, "labels"),
    ],
)
def test_tensors_that_do_not_belong_together_are_named(
    client: Client, sent: str, path: str, change: dict[str, Any], status: int, named: str
) -> None:
    tensors = {
        name: array for name, array in (tensors_for(path) | change).items() if array is not None
    }
    response = client.send(path, wire.BODIES[sent](tensors), wire.MEDIA_TYPES[sent])
    assert named in wire.problem_of(response, status)["detail"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("class_axis=3", "class_axis"),
        ("class_axis=-4", "class_axis"),
        (f"class_axis={2**63 - 1}", "class_axis"),
        ("reduction=avg", "reduction"),
        ("outputs=loss,rank9", "outputs"),
        ("empty=error&ignore_index=2", None),
        ("label_smoothing=2", "label_smoothing"),
        ("temperatur=2", "temperatur"),
        ("temperature=0", "temperature"),
        ("softcap=-1", "softcap"),
        ("z_loss=inf", "z_loss"),
        ("logits_dtype=bfloat16", "logits_dtype"),
    ],
)
def test_options_that_cannot_be_used_are_named(
    client: Client, query: str, named: str | None
) -> None:
    tensors = worked() | {"labels": np.full_like(LABELS, 2)}
    response = client.send(f"/v1/cross_entropy?{query}", wire.npz_body(tensors), wire.NPZ)
    problem = wire.problem_of(response, 422)
    assert named is None or problem["field"] == named


SQUARE = [[1.0, 2.0], [3.0, 5.0]]


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        (
            "/v1/cross_entropy",
            {"logits": [[[0.5] * 5] * 3] * 2, "labels": [[0] * 3] * 2},
            "they fit with class_axis=-1",
        ),
        (
            "/v1/cross_entropy",
            {"logits": [0.3, -1.2, 2.0], "labels": [1, 0, 1]},
            "Integers are class indices, never probabilities",
        ),
        ("/v1/cross_entropy", {"logits": SQUARE, "labels": [[1, 0], [0, 1]]}, "floats, 1.0 for 1"),
        ("/v1/cross_entropy", {"logits": SQUARE, "targets": [0, 1]}, "'targets', is it labels?"),
        ("/v1/cross_entropy", {"preds": SQUARE, "labels": [0, 1]}, "'preds', is it logits?"),
        ("/v1/cross_entropy", {"log_probs": SQUARE, "labels": [0, 1]}, "for /v1/nll_loss"),
        ("/v1/nll_loss", {"logits": SQUARE, "labels": [0, 1]}, "for /v1/cross_entropy"),
        (
            "/v1/cross_entropy",
            {"logits": SQUARE, "labels": [0, 1], "smoothing": 0.1},
            "is it label_smoothing?",
        ),
        (
            "/v1/cross_entropy",
            {"logits": SQUARE, "labels": [0, 1], "temprature": 2},
            "is it temperature?",
        ),
        ("/v1/cross_entropy", {"logits": SQUARE, "labels": [0.0, 0.5]}, "labels[1] is 0.5"),
        ("/v1/cross_entropy", {"logits": SQUARE, "labels": [0, -1]}, "ignore_index=-1"),
    ],
)
def test_what_would_fit_is_named(
    client: Client, path: str, body: dict[str, Any], named: str
) -> None:
    response = client.post(path, json=body)
    assert named in wire.problem_of(response, 422)["detail"]


def test_unknown_tensors_of_binary_formats_are_told_their_names_here(client: Client) -> None:
    tensors = {"logits": LOGITS, "target": LABELS}
    for sent in ("npz", "safetensors"):
        body = wire.BODIES[sent](tensors)
        response = client.send("/v1/cross_entropy", body, wire.MEDIA_TYPES[sent])
        assert "is it labels?" in wire.problem_of(response, 400)["detail"]


@pytest.mark.parametrize("path", ["/v1/cross_entropy", "/v1/explain"])
def test_labels_may_be_written_as_floats(client: Client, path: str) -> None:
    whole, floats = (
        client.post(path, json={"logits": SQUARE, "labels": labels})
        for labels in ([0, 1], [0.0, 1.0])
    )
    assert whole.status_code == 200
    assert whole.content == floats.content


@pytest.mark.parametrize("sent", FORMATS)
def test_class_probabilities_are_checked_unless_that_is_turned_off(
    client: Client, sent: str
) -> None:
    logits = np.array(SQUARE, np.float32)
    tensors: dict[str, Any] = {
        "logits": logits, "labels": np.array([[0.25, 0.75], [-3, 4]], np.float32),
    }  # fmt: skip
    body, media_type = wire.BODIES[sent](tensors), wire.MEDIA_TYPES[sent]
    path = "/v1/cross_entropy"
    problem = wire.problem_of(client.send(path, body, media_type), 422)
    assert problem["detail"].startswith("labels[1, :] has -3 for class 0")
    assert (problem["field"], problem["position"]) == ("labels", [1])
    answer = client.send(f"{path}?check_probabilities=false", body, media_type, accept=wire.NPZ)
    expected = kernels.cross_entropy(**tensors, check_probabilities=False)
    assert wire.tensors_of(answer)["loss"] == expected
    wrong = client.send(f"{path}?check_probabilities=maybe", body, media_type)
    assert wire.problem_of(wrong, 422)["field"] == "check_probabilities"


def test_the_check_is_turned_off_in_the_body_too(client: Client) -> None:
    tensors = {"logits": np.array(SQUARE), "labels": np.array([[2.5, 0], [0, 1]])}
    off = client.send(
        "/v1/cross_entropy",
        wire.safetensors_body(tensors, {"check_probabilities": "false"}),
        wire.SAFETENSORS,
    )
    text = client.post(
        "/v1/cross_entropy",
        json={name: array.tolist() for name, array in tensors.items()}
        | {"check_probabilities": False},
    )
    assert (off.status_code, text.status_code) == (200, 200)
