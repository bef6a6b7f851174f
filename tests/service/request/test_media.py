"""Content-Type says how a body is read; Accept says how it is answered."""

from __future__ import annotations

import pytest

from service.codecs import BY_MEDIA_TYPE
from service.errors import HeaderTooLarge, NotAcceptable, UnsupportedMediaType
from service.request import media
from tests.service import wire
from tests.service.conftest import Client

JSON, SAFETENSORS, NPZ = "application/json", "application/x-safetensors", "application/x-npz"


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        (JSON, "json"),
        ("Application/JSON ; charset=UTF-8", "json"),
        ('application/json; charset="utf-8"', "json"),
        (SAFETENSORS, "safetensors"),
        ("application/vnd.safetensors", "safetensors"),
        (NPZ, "npz"),
        ("application/zip;x=y", "npz"),
        ("application / json ; charset = UTF_8;", "json"),
        ("application/json;charset=utf8", "json"),
        ("application/json;charset='Utf-8'", "json"),
        ("application/json; charset=us-ascii; q=1", "json"),
        ("application/json; charset=", "json"),
        ('application/json;; profile="a;charset=latin1"', "json"),
        # Only text has a charset.
        ("application/zip; charset=binary", "npz"),
        (f"{SAFETENSORS};charset=ISO-8859-1", "safetensors"),
    ],
)
def test_the_formats_are_known_by_their_types(content_type: str, name: str) -> None:
    assert media.of_request([content_type]).name == name
    for encoding in ("identity", "", " , Identity,"):
        assert media.of_request([content_type], [encoding]).name == name


@pytest.mark.parametrize(
    "charset", ["ISO-8859-1", "utf-16", '"UTF-16LE"', "windows-1252", "x" * 999]
)
def test_another_charset_is_what_the_error_says(charset: str) -> None:
    shown = charset.strip('"').lower()[:60]
    with pytest.raises(UnsupportedMediaType, match=f"^charset '{shown}'.*charset=utf-8") as caught:
        media.of_request([f"application/json; charset={charset}"])
    assert caught.value.field == "content-type"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "json",
        "text/json",
        "application/*",
        "application/octet-stream",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/jsonx",
    ],
)
def test_other_types_are_refused_by_name(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=SAFETENSORS) as caught:
        media.of_request([content_type])
    assert caught.value.field == "content-type"


@pytest.mark.parametrize("content_types", [[], [JSON, JSON], [JSON, NPZ]])
def test_there_is_exactly_one_type(content_types: list[str]) -> None:
    with pytest.raises(UnsupportedMediaType, match="name one of"):
        media.of_request(content_types)


@pytest.mark.parametrize(
    "encoding", ["gzip", "br", "zstd", "deflate", "identity, gzip", "x" * 9999]
)
def test_an_encoded_body_is_refused(encoding: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="as it is") as caught:
        media.of_request([JSON], [encoding])
    assert caught.value.field == "content-encoding"
    assert len(caught.value.message) < 300


JAVA = ["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"]


@pytest.mark.parametrize("own", [JSON, SAFETENSORS, NPZ])
@pytest.mark.parametrize(
    "accept", [[], [""], ["*/*"], ["application/*"], ["text/html, */*;q=0.1"], ["*"], [" , "], JAVA]
)
def test_without_a_preference_the_answer_has_the_requests_format(
    own: str, accept: list[str]
) -> None:
    codec, media_type = media.of_answer(accept, BY_MEDIA_TYPE[own])
    assert (codec, media_type) == (BY_MEDIA_TYPE[own], own)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (JSON, JSON),
        ("APPLICATION/X-NPZ", NPZ),
        ("application/vnd.safetensors", "application/vnd.safetensors"),
        ("application/zip", "application/zip"),
        (f"{JSON};q=0.5, {NPZ};q=0.7", NPZ),
        (f"{JSON};q=0.5, */*;q=0.1", JSON),
        (f"{SAFETENSORS};q=0, application/vnd.safetensors;q=0, */*", JSON),
        (f"{JSON};q=0, {NPZ}; q=1.000", NPZ),
        (f"{JSON}, {SAFETENSORS}", SAFETENSORS),
        (f"text/html, {JSON};q=0.001", JSON),
        (f"application/*;q=0.2, {JSON};q=0.3", JSON),
        (f"{JSON};q=nonsense, {NPZ};q=0.1", NPZ),
        (f"{JSON}; version=1", JSON),
        # Java 8 and 11, and others that RFC 9110 has no place for.
        (f"text/html, image/gif, image/jpeg, {NPZ}; q=.3, *; q=.2, */*; q=.2", NPZ),
        (f"{JSON};q=.5, {NPZ};q=.50001", NPZ),
        (f"{JSON};q=1., {NPZ};q=0.9999", JSON),
        (f"{JSON};q=00.1, {NPZ};q=01", NPZ),
        (f"*;q=.1, {NPZ}", NPZ),
        (f"{NPZ};q=.0, {SAFETENSORS};q=0., application/vnd.safetensors;q=00,*", JSON),
        (f" ,, {NPZ} ;\tq = 0.5 ,", NPZ),
        (f'{JSON};q="0.2", {NPZ};Q=0.3;ext="a,b;q=0"', NPZ),
        (f'text/x;a="b, {NPZ}', NPZ),
        (f'text/x;a="{JSON}, {NPZ}", application / json', JSON),
    ],
)
def test_the_clients_preference_decides(accept: str, media_type: str) -> None:
    codec, answered = media.of_answer([accept], BY_MEDIA_TYPE[SAFETENSORS])
    assert answered == media_type
    assert codec is BY_MEDIA_TYPE[media_type]


def test_several_accept_fields_are_one_list() -> None:
    assert media.of_answer(["text/html", NPZ], BY_MEDIA_TYPE[JSON])[1] == NPZ


@pytest.mark.parametrize(
    "accept",
    [
        "*;q=0",
        "*;q=.0",
        "*/json",
        f"{JSON};q=.",
        f"{JSON};q=",
        "text/html",
        f"{JSON};q=0",
        "*/*;q=0",
        "nonsense",
        "text/*",
        f"{JSON};q=2",
        ";;;,,x",
    ],
)
def test_what_cannot_be_met_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable, match=NPZ):
        media.of_answer([accept], BY_MEDIA_TYPE[JSON])


@pytest.mark.parametrize("fields", [["x" * 2049], ["x" * 1000] * 3, ["", "é" * 2049]])
def test_a_value_that_is_longer_than_any_clients_is_not_read(fields: list[str]) -> None:
    given = [(b"accept", field.encode("latin-1")) for field in fields]
    with pytest.raises(HeaderTooLarge, match="Accept may have at most 2,048 bytes") as caught:
        media.values(given, b"accept")
    assert caught.value.field == "accept"
    assert media.values(given, b"content-type") == []
    assert media.values([(b"accept", b"x" * 2048)], b"accept") == ["x" * 2048]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/softmax", "accept"),
        ("/v1/softmax", "content-type"),
        ("/v1/softmax", "content-encoding"),
        ("/v2/models/softmax/infer", "accept-encoding"),
        ("/v2/models/softmax/infer", "content-encoding"),
        ("/v2/models/softmax/infer", "inference-header-content-length"),
    ],
)
def test_a_header_that_would_hold_the_loop_is_a_431(client: Client, path: str, name: str) -> None:
    headers = {"content-type": JSON} | {name: "a," * 1025}
    problem = wire.problem_of(client.post(path, content=b"{}", headers=headers), 431)
    assert problem["field"] == name
