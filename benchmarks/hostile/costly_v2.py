"""Costly V2 requests, plain and compressed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable
from functools import partial

from benchmarks.client import Request
from benchmarks.hostile.costly import NUMBER, SIZE, Attack, made, repeated, v1, v2_request

_SOFTMAX = "/v2/models/softmax/infer"
# Deflate's empty block: bytes that cost no time, and raise what a body may inflate to.
_EMPTY_BLOCK = b"\0\0\0\xff\xff"
_CONTAINERS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def _v2_numbers(size: int) -> bytes:
    """One input whose type comes after its data, which is therefore read twice."""
    data = repeated(NUMBER, max(size - 150, 30))
    count = data.count(b",") + 1
    last = b'],"name":"logits","datatype":"FP32","shape":[1,%d]}]}' % count
    return b'{"inputs":[{"data":[' + data + last


def _v2_zeros() -> bytes:
    """As many numbers as the limits permit, for the longest answer."""
    data = repeated(b"0", 3_399_000)
    first = b'{"inputs":[{"name":"logits","datatype":"FP16","shape":[1,%d],"data":['
    return first % (data.count(b",") + 1) + data + b"]}]}"


def _v2_members() -> bytes:
    """Inputs of as many members as each may have, and then what is not UTF-8."""
    entry = b"{" + b",".join(b'"%d":0' % number for number in range(63)) + b"}"
    text = b'{"\\\\":0,"inputs":[' + b",".join([entry] * 64)
    return text.ljust(2**16, b"\xff")


def _v2_outputs() -> bytes:
    """As many outputs as may be, each with lists in its parameters."""
    lists = b'{"name":"loss","parameters":{"x":[' + repeated(b"[]", 900) + b"]}}"
    return b'{"inputs":[],"outputs":[' + repeated(lists, 60_000) + b"]}"


def _compressed(content: bytes, container: str, size: int = 0) -> bytes:
    """``content`` compressed as far as it goes, then made ``size`` bytes by empty blocks."""
    stream = zlib.compressobj(9, wbits=_CONTAINERS[container])
    body = stream.compress(content) + stream.flush(zlib.Z_FULL_FLUSH)
    last = stream.flush()
    return body + _EMPTY_BLOCK * ((size - len(body) - len(last)) // len(_EMPTY_BLOCK)) + last


def _coded(content: Callable[[], bytes], coding: str, size: int = 0) -> Request:
    body = _compressed(content(), coding, size)
    return v2_request(body, path=_SOFTMAX, content_encoding=coding, accept_encoding=coding)


def _bomb(coding: str, first: bytes, piece: bytes, count: int) -> bytes:
    """``first`` and ``count`` times ``piece``, compressed; its checksum is wrong."""
    stream = zlib.compressobj(9, wbits=_CONTAINERS[coding])
    begun, one = (
        stream.compress(part) + stream.flush(zlib.Z_FULL_FLUSH) for part in (first, piece)
    )
    return begun + one * count + stream.flush()


def _bomb_behind_json(coding: str) -> Request:
    """Data that inflates to 1 GB, after JSON that declares a tensor of that size."""
    count = 2**28
    source = {"binary_data_size": 4 * count}
    entry = {"name": "logits", "datatype": "FP32", "shape": [1, count], "parameters": source}
    header = json.dumps({"inputs": [entry]}).encode()
    body = _bomb(coding, header, bytes(2**20), 2**10)
    return v2_request(body, len(header), content_encoding=coding)


def _bomb_of_json(coding: str) -> Request:
    first = b'{"inputs":[{"name":"logits","datatype":"FP32","shape":[1,536870912],"data":['
    return v2_request(_bomb(coding, first, b"0," * 2**19, 2**10), content_encoding=coding)


def v2_attacks() -> Iterable[Attack]:
    lists = b'{"inputs":[],"parameters":{"x":[' + repeated(b"[]", 65_000) + b"]}}"
    for name, make in {
        "members of 64 inputs": _v2_members,
        "lists in 64 outputs": _v2_outputs,
        "lists in a parameter": lambda: lists,
        "numbers between two others, 64 KB": lambda: _v2_numbers(65_000),
        "numbers between two others": lambda: _v2_numbers(SIZE),
        "an id of 1 MB": lambda: b'{"id":"' + b"x" * (SIZE - 20) + b'"}',
        "bytes that are not UTF-8": lambda: b'{"\\\\":"' + b"\xff" * 65_000,
    }.items():
        yield Attack("V2 JSON", name, partial(made, make, v2_request, path=_SOFTMAX))
    index = b'{"ready":[' + repeated(b"[]", 16_000) + b"]}"
    listed = partial(v1, index, path="/v2/repository/index")
    yield Attack("V2 JSON", "lists for the repository", listed)
    for coding in ("gzip", "deflate"):
        form = f"V2 {coding}"
        yield Attack(form, "members of 64 inputs", partial(_coded, _v2_members, coding))
        yield Attack(form, "lists in 64 outputs", partial(_coded, _v2_outputs, coding))
        yield Attack(form, "1 GB behind its JSON", partial(_bomb_behind_json, coding))
        yield Attack(form, "1 GB of zeros", partial(_bomb_of_json, coding))
        yield Attack(form, "3.4 MB of zeros", partial(_coded, _v2_zeros, coding, SIZE))
        for size, text in ((300, 9_000), (4_000, 66_000), (60_000, 950_000), (SIZE, 3_400_000)):
            name = f"numbers between two others, {size:,} bytes"
            numbers = partial(_v2_numbers, text)
            yield Attack(form, name, partial(_coded, numbers, coding, size - 200))
