"""Costly requests: as much CPU time for their bytes as can be, in JSON and in HTTP heads.

None is longer than 1 MB (``SIZE``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from benchmarks.client import Request, post
from benchmarks.requests import V1, V2

SIZE = 1_000_000

# Takes no labels, and answers with a number for each logit.
_SOFTMAX = "/v1/softmax"

# Halfway between two float64s but for its last digit, among the smallest: the slowest number to
# convert.
NUMBER = b"2.2250738585072011360e-308"


class Attack(NamedTuple):
    """A kind of request: its format and coding, its name, and a function that makes it."""

    form: str
    name: str
    make: Callable[[], Request]


def v1(body: bytes, kind: str = "json", path: str = V1, **fields: str) -> Request:
    return post(path, [body], None, content_type=f"application/{kind}", **fields).joined


def v2_request(body: bytes, header: int | None = None, path: str = V2, **fields: str) -> Request:
    if header is not None:
        fields["inference_header_content_length"] = str(header)
    return post(path, [body], None, **fields).joined


def repeated(piece: bytes, size: int, between: bytes = b",") -> bytes:
    return between.join([piece] * (size // (len(piece) + len(between))))


_LABELLED = b'{"labels":[0],"logits":[[1.5,2]],'


def _json_bodies() -> dict[str, bytes]:
    """Bodies for cross-entropy, by name."""
    lists = b",".join(b'"o%d":[' % n + repeated(b"[]", 21_000) + b"]" for n in range(60))
    distinct = b",".join(b'"%d":0' % number for number in range(150_000))
    long_keys = (b'"%d' % number + b"k" * 1000 + b'":0' for number in range(60))
    ones = repeated(b"1", SIZE - 99)
    return {
        "options of lists": _LABELLED + lists[: SIZE - 40] + b"}",
        "an option of many keys": _LABELLED + b'"x":{' + distinct[:64_000] + b"}",
        "options without end": _LABELLED + distinct[: SIZE - 40],
        "keys of 1 KiB": _LABELLED + b",".join(long_keys) + b"}",
        "an option of escapes": _LABELLED + b'"x":"' + b"\\u0041" * 10_000 + b'"}',
        "an option of 1 MB": _LABELLED + b'"outputs":"' + b"loss," * (SIZE // 5) + b'"}',
        "outputs of 64 KiB": _LABELLED + b'"outputs":"' + b"loss," * 13_000 + b'"}',
        "a list of outputs": _LABELLED + b'"outputs":[' + repeated(b'"loss"', 60_000) + b"]}",
        "a deep option": _LABELLED + b'"x":' + b"[" * 60_000,
        "a deep tensor": b'{"logits":' + b"[" * (SIZE - 20),
        "labels that are none": b'{"labels":[99999999999999999999,' + ones + b"]}",
        "labels, the last a word": b'{"labels":[' + ones + b',"x"]}',
        "probabilities, the last a word": b'{"logits":['
        + ones[: SIZE // 2]
        + b'],"labels":['
        + ones[: SIZE // 2 - 99]
        + b"]}",
        "space": _LABELLED + b" " * (SIZE - 60) + b'"x":1}',
    }


def json_attacks() -> Iterable[Attack]:
    for name, body in _json_bodies().items():
        yield Attack("JSON", name, partial(v1, body))
    # Numbers whose type comes after them are read twice.
    size, last = SIZE - 99, b']],"dtype":"float64"}'
    for name, numbers in {
        "one number": b"0." + b"1" * size,
        "numbers of 800 digits": repeated(NUMBER[:20].ljust(800, b"1"), size),
        "numbers between two others": repeated(NUMBER, size),
        "zeros": repeated(b"0", size),
        "1 KiB of odd numbers": repeated(NUMBER, 900),
    }.items():
        body = b'{"logits":[[' + numbers + last
        yield Attack("JSON", name, partial(v1, body, path=_SOFTMAX))
    body = b'{"logits":[' + repeated(b"[]", SIZE - 20) + b"]}"
    yield Attack("JSON", "rows without elements", partial(v1, body, path=_SOFTMAX))
    body = b'{"logits":[' + repeated(b"[0.5,1]", 60_000) + b'],"labels":['
    body += repeated(b"0", 15_000) + b"]}"
    yield Attack("JSON", "explain", partial(v1, body, path="/v1/explain"))


def made(make: Callable[[], bytes], send: Callable[..., Request], **given: str) -> Request:
    return send(make(), **given)


def head_attacks() -> Iterable[Attack]:
    body = b'{"logits":[[1.5,2]],"labels":[0]}'
    options = "&".join(f"o{number}={number}" for number in range(2500))
    for name, path in {
        "options in the address": f"{V1}?{options}",
        "escapes in the address": f"{V1}?outputs=" + "%41" * 10_000,
        "a long option in the address": f"{V1}?outputs=" + "loss," * 6_000,
        "a path of slashes": "/v2/models" + "/" * 30_000,
        "escapes in the path": "/" + "%41" * 10_000,
    }.items():
        yield Attack("head", name, partial(v1, body, path=path))
    for name, fields in {
        "parameters of Content-Type": {"content_type": "application/json" + ";a" * 15_000},
        "a long Authorization": {"content_type": "x", "authorization": "Bearer " + "x" * 32_000},
        "codings without end": {"content_type": "x", "content_encoding": "gzip," * 6_000},
    }.items():
        yield Attack("head", name, partial(_fields, body, V1, fields))
    fields = {"accept_encoding": "gzip," * 6_000}
    yield Attack("head", "an answer's codings", partial(_fields, body, V2, fields))
    yield Attack("head", "chunks of a byte", partial(_chunked, 60_000))


def _fields(body: bytes, path: str, fields: dict[str, str]) -> Request:
    return post(path, [body], None, **fields).joined


def _chunked(count: int) -> Request:
    head = f"POST {V1} HTTP/1.1\r\nHost: lossd\r\nContent-Type: application/json\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    return Request(head.encode() + b"1\r\n \r\n" * count + b"0\r\n\r\n", ())
