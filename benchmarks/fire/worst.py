"""Requests that are made to cost as much time for their bytes as they can, by format and coding.

None is longer than 1 MB: ``SIZE`` stands for that.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.wire.client import Request, post
from benchmarks.wire.requests import V1, V2
from service.codecs import npz, safetensors_format

SIZE = 1_000_000

# Halfway between two float64s but for its last digit, at the end of their range: nothing that is
# read as one number takes longer.
_NUMBER = b"2.2250738585072011360e-308"
# Deflate's empty block, and one that is stored: bytes that cost nothing, and justify others.
_EMPTY_BLOCK = b"\0\0\0\xff\xff"
_STORED_BLOCK = 2**15


class Attack(NamedTuple):
    """One kind of request: in which format and coding, and what is in it."""

    form: str
    name: str
    make: Callable[[], Request]


def _v1(body: bytes, kind: str = "json", path: str = V1, **fields: str) -> Request:
    return post(path, [body], content_type=f"application/{kind}", **fields).joined


def _v2(body: bytes, header: int | None = None, **fields: str) -> Request:
    given = {} if header is None else {"inference_header_content_length": str(header)}
    return post(V2, [body], **given, **fields).joined


def _repeated(piece: bytes, size: int, between: bytes = b",") -> bytes:
    return between.join([piece] * (size // (len(piece) + len(between))))


def _v2_numbers(size: int) -> bytes:
    """One input, whose type is only told behind its data: that is read twice."""
    data = _repeated(_NUMBER, max(size - 150, 30))
    count = data.count(b",") + 1
    last = b'],"name":"logits","datatype":"FP32","shape":[1,%d]}]}' % count
    return b'{"inputs":[{"data":[' + data + last


def _v2_members() -> bytes:
    """Inputs of as many members as each may have, and then what is not UTF-8."""
    entry = b"{" + b",".join(b'"%d":0' % number for number in range(63)) + b"}"
    text = b'{"\\\\":0,"inputs":[' + _repeated(entry, 2**16)
    return text[: 2**16].ljust(2**16, b"\xff")


def _v2_outputs() -> bytes:
    """As many outputs as may be, each with lists in its parameters."""
    lists = b'{"name":"loss","parameters":{"x":[' + _repeated(b"[]", 900) + b"]}}"
    return b'{"inputs":[],"outputs":[' + _repeated(lists, 60_000) + b"]}"


_CONTAINERS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS, "zip": -zlib.MAX_WBITS}


def _compressed(content: bytes, container: str, size: int = 0) -> bytes:
    """``content`` compressed as far as it goes, then made ``size`` bytes by empty blocks."""
    stream = zlib.compressobj(9, wbits=_CONTAINERS[container])
    body = stream.compress(content) + stream.flush(zlib.Z_FULL_FLUSH)
    last = stream.flush()
    return body + _EMPTY_BLOCK * ((size - len(body) - len(last)) // len(_EMPTY_BLOCK)) + last


def _coded(content: Callable[[], bytes], coding: str, size: int = 0) -> Request:
    return _v2(_compressed(content(), coding, size), content_encoding=coding)


def _v2_bomb(coding: str) -> Request:
    """What inflates to 1 GB, behind JSON that tells of a tensor of that size."""
    count = 2**28
    entry = {"name": "logits", "datatype": "FP32", "shape": [1, count]}
    entry["parameters"] = {"binary_data_size": 4 * count}
    header = json.dumps({"inputs": [entry]}).encode()
    stream = zlib.compressobj(1, wbits=_CONTAINERS[coding])
    pieces = [stream.compress(header), *(stream.compress(bytes(2**20)) for _ in range(1000))]
    body = b"".join([*pieces, stream.flush()])
    return _v2(body, len(header), content_encoding=coding)


def _npz(arrays: dict[str, np.ndarray[Any, Any]]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _npz_of_names(count: int, size: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(f"{number}.npy".rjust(size, "x")), b"")
    return file.getvalue()


def _npz_at_the_limit(size: int) -> bytes:
    """Logits that inflate sixteenfold, beside labels of which half are stored."""
    rows = size // 16
    arrays = {"labels": np.zeros(rows, np.int64), "logits": np.zeros((rows, 63), np.float16)}
    body = npz.encode({"labels": arrays["labels"]})
    file = io.BytesIO(body)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(
            zipfile.ZipInfo("logits.npy"),
            npz.npy.header(npz.row_of("logits", arrays["logits"]), (rows, 63))
            + arrays["logits"].tobytes(),
            zipfile.ZIP_DEFLATED,
        )
    return file.getvalue()


def _safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _tensors(**arrays: np.ndarray[Any, Any]) -> bytes:
    return safetensors_format.encode(arrays)


def _empty(extent: int) -> bytes:
    entry = {"dtype": "F32", "shape": [extent, 0], "data_offsets": [0, 0]}
    return _safetensors({"logits": entry})


def _nan(count: int) -> bytes:
    return _tensors(logits=np.full((count, 1), np.nan, np.float32), labels=np.zeros(count, int))


_LABELLED = b'{"labels":[0],"logits":[[1.5,2]],'


def _json_attacks() -> Iterable[Attack]:
    lists = b",".join(b'"o%d":[' % n + _repeated(b"[]", 21_000) + b"]" for n in range(60))
    distinct = b",".join(b'"%d":0' % number for number in range(150_000))
    for name, body in {
        "options of lists": _LABELLED + lists[: SIZE - 40] + b"}",
        "an option of many keys": _LABELLED + b'"x":{' + distinct[:64_000] + b"}",
        "options without end": _LABELLED + distinct[: SIZE - 40],
        "keys of 1 KiB": _LABELLED + b",".join(b'"%d' % n + b"k" * 1000 + b'":0' for n in range(60)),
        "an option of escapes": _LABELLED + b'"x":"' + b"\\u0041" * 10_000 + b'"}',
        "an option of 1 MB": _LABELLED + b'"outputs":"' + b"loss," * (SIZE // 5) + b'"}',
        "outputs of 64 KiB": _LABELLED + b'"outputs":"' + b"loss," * 13_000 + b'"}',
        "a deep option": _LABELLED + b'"x":' + b"[" * 60_000,
        "a deep tensor": b'{"logits":' + b"[" * (SIZE - 20),
        "one number": b'{"logits":[[0.' + b"1" * (SIZE - 20) + b"]]}",
        "numbers of 800 digits": b'{"logits":[[' + _repeated(_NUMBER[:20].ljust(800, b"0"), SIZE) + b"]]}",
        "numbers between two others": b'{"logits":[[' + _repeated(_NUMBER, SIZE - 99) + b']],"dtype":"float64"}',
        "zeros": b'{"logits":[[' + _repeated(b"0", SIZE - 99) + b']],"labels":[0],"outputs":["gradient","log_softmax"]}',
        "rows without elements": b'{"logits":[' + _repeated(b"[]", SIZE - 20) + b"]}",
        "labels that are none": b'{"labels":[99999999999999999999,' + _repeated(b"1", SIZE - 99) + b",1]}",
        "labels, the last a word": b'{"labels":[' + _repeated(b"1", SIZE - 99) + b',"x"]}',
        "space": _LABELLED + b" " * (SIZE - 60) + b'"x":1}',
        "1 KiB of odd numbers": b'{"logits":[[' + _repeated(_NUMBER, 900) + b"]]}",
    }.items():
        yield Attack("JSON", name, partial(_v1, body))
    body = b'{"logits":[' + _repeated(b"[0.5,1]", 60_000) + b'],"labels":[' + _repeated(b"0", 15_000) + b"]}"
    yield Attack("JSON", "explain", partial(_v1, body, path="/v1/explain"))


def _v2_attacks() -> Iterable[Attack]:
    for name, make in {
        "members of 64 inputs": _v2_members,
        "lists in 64 outputs": _v2_outputs,
        "lists in a parameter": lambda: b'{"inputs":[],"parameters":{"x":[' + _repeated(b"[]", 65_000) + b"]}}",
        "numbers between two others, 64 KB": lambda: _v2_numbers(65_000),
        "numbers between two others": lambda: _v2_numbers(SIZE),
        "an id of 1 MB": lambda: b'{"id":"' + b"x" * (SIZE - 20) + b'"}',
        "bytes that are not UTF-8": lambda: b'{"\\\\":"' + b"\xff" * 65_000,
    }.items():
        yield Attack("V2 JSON", name, lambda make=make: _v2(make()))  # type: ignore[misc]
    for coding in ("gzip", "deflate"):
        form = f"V2 {coding}"
        yield Attack(form, "members of 64 inputs", partial(_coded, _v2_members, coding))
        yield Attack(form, "lists in 64 outputs", partial(_coded, _v2_outputs, coding))
        yield Attack(form, "1 GB behind its JSON", partial(_v2_bomb, coding))
        yield Attack(form, "1 GB of zeros", partial(_coded, lambda: b"0," * 2**27, coding, 500_000))
        for size, text in ((300, 8_000), (4_000, 67_000), (60_000, 950_000), (SIZE, 4_100_000)):
            name = f"numbers between two others, {size:,} bytes"
            numbers = partial(_v2_numbers, text)
            yield Attack(form, name, partial(_coded, numbers, coding, size - 300))


def _binary_attacks() -> Iterable[Attack]:
    for name, make in {
        "65,000 members": lambda: _npz_of_names(15_000, 5),
        "members with long names": lambda: _npz_of_names(40, 10_000),
        "1 GB of zeros": lambda: _npz({"logits": np.zeros((1, 2**28), np.float32)}),
        "1 MB of zeros": lambda: _npz({"logits": np.zeros((1, 2**18), np.float32)}),
        "sixteenfold": lambda: _npz_at_the_limit(900_000),
    }.items():
        yield Attack("npz", name, lambda make=make: _v1(make(), "x-npz"))  # type: ignore[misc]
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    for name, make in {
        "a header of escapes": lambda: _safetensors(b'{"' + b"\\u0041" * 160_000 + b'":0}'),
        "4,000 tensors": lambda: _safetensors({f"t{n}": entry for n in range(360)}),
        "4,000 notes": lambda: _safetensors({"__metadata__": {f"n{n}": "" for n in range(4000)}}),
        "a note of 1 MB": lambda: _safetensors({"__metadata__": {"outputs": "loss," * 190_000}}),
        "digits for an option": lambda: _safetensors({"__metadata__": {"class_axis": "1" * 900_000}}),
        "a deep header": lambda: _safetensors(b'{"a":' + b"[" * 4000),
        "a header of lists": lambda: _safetensors(b'{"a":[' + _repeated(b"[]", 6000) + b"]}"),
        "extents without elements": lambda: _empty(2**28),
        "NaN, at once": lambda: _nan(2**16),
        "NaN": lambda: _nan(80_000),
    }.items():
        yield Attack("safetensors", name, lambda make=make: _v1(make(), "x-safetensors"))  # type: ignore[misc]


def _head_attacks() -> Iterable[Attack]:
    body = b'{"logits":[[1.5,2]],"labels":[0]}'
    options = "&".join(f"o{number}={number}" for number in range(2500))
    for name, path in {
        "options in the address": f"{V1}?{options}",
        "escapes in the address": f"{V1}?outputs=" + "%41" * 10_000,
        "a long option in the address": f"{V1}?outputs=" + "loss," * 6_000,
        "a path of slashes": "/v2/models" + "/" * 30_000,
        "escapes in the path": "/" + "%41" * 10_000,
    }.items():
        yield Attack("header", name, partial(_v1, body, path=path))
    for name, fields in {
        "parameters of Content-Type": {"content-type": "application/json" + ";a" * 15_000},
        "a long Authorization": {"authorization": "Bearer " + "x" * 32_000},
        "codings without end": {"content-encoding": "gzip," * 6_000},
        "answer's codings without end": {"accept-encoding": "gzip," * 6_000},
    }.items():
        yield Attack("header", name, lambda fields=fields: post(V2, [body], **fields).joined)  # type: ignore[misc]
    index = b'{"ready":[' + _repeated(b"[]", 16_000) + b"]}"
    make = partial(_v1, index, path="/v2/repository/index")
    yield Attack("V2 JSON", "lists for the repository", make)


def attacks() -> list[Attack]:
    """All of them. Their bodies are made when asked for."""
    return [*_json_attacks(), *_v2_attacks(), *_binary_attacks(), *_head_attacks()]
