"""safetensors bodies that are refused, and how they are made."""

from __future__ import annotations

import json
from typing import Any

from service.codecs.safetensors import HEADER_LIMIT


def packed(header: str | bytes | dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(header) if isinstance(header, dict) else header
    raw = text.encode() if isinstance(text, str) else text
    return len(raw).to_bytes(8, "little") + raw + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


REFUSED: dict[str, tuple[bytes, str]] = {
    # the length
    "empty": (b"", "must start with the header's length"),
    "cut_length": (b"\x02\0\0\0", "must start with the header's length"),
    "length_2**63": ((1 << 63).to_bytes(8, "little") + b"{}", "must start with the header's len"),
    "length_past_the_end": ((3).to_bytes(8, "little") + b"{}", "it is 10 bytes long"),
    "length_over_the_limit": (packed(b"{}".ljust(HEADER_LIMIT + 1)), "from 2 to 1,048,576"),
    # the header's text
    "space_first": (packed(" {}"), "from its first byte"),
    "list": (packed("[]"), "must be a JSON object"),
    "not_json": (packed('{"logits": }'), r"not JSON: Expecting value \(character 11"),
    "two_values": (packed("{} {}"), "not JSON: Extra data"),
    "byte_order_mark": (packed(b"\xef\xbb\xbf{}"), "from its first byte"),
    "not_utf8": (packed(b'{"\xff": 1}'), "must be UTF-8"),
    "utf16": (packed("{}".encode("utf-16-le")), "not JSON"),
    "raw_control_character": (packed('{"a\n": 1}'), "not JSON: Invalid control character"),
    "duplicate_tensor": (
        packed('{"logits": %s, "logits": %s}' % ((json.dumps(entry()),) * 2), bytes(8)),
        "the header has 'logits' twice",
    ),
    "duplicate_key": (
        packed('{"logits": {"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
        "the header has 'dtype' twice",
    ),
    "deep": (packed("{" + '"a":[' * 10**5), "more than 4,096 brackets"),
    "deep_1e6": (packed("{" + "[" * 10**6), "more than 4,096 brackets"),
    # entries
    "unknown_tensor": (
        packed({"evil": entry()}, bytes(8)),
        "unknown tensor 'evil': the tensors here are labels, logits, weight",
    ),
    "unknown_long_tensor": (packed({"e" * 10**5: entry()}), r"unknown tensor 'e{60}'\.\.\.:"),
    "surrogate_tensor": (packed('{"\\ud800": 1}'), r"unknown tensor '\\ud800'"),
    "entry_is_a_list": (packed({"logits": []}), "exactly dtype, shape and data_offsets"),
    "missing_key": (packed({"logits": {"dtype": "F32", "shape": []}}), "exactly dtype, shape"),
    "extra_key": (packed({"logits": {**entry(), "x": 1}}), "exactly dtype, shape"),
    # dtypes
    "bool_dtype": (packed({"logits": entry("BOOL")}), "dtype 'BOOL' is not one of F32, F64, F16"),
    "numpy_dtype": (packed({"logits": entry("float32")}), "'float32' is not one of"),
    "bool_labels": (packed({"labels": entry("BOOL")}), "dtype 'BOOL' is not one of F32, F64, F16"),
    "number_dtype": (packed({"logits": entry(7)}), "dtype of type int is not one of"),
    "list_dtype": (packed({"logits": entry(["F32"])}), "dtype of type list is not one of"),
    # shapes
    "shape_is_a_number": (packed({"logits": entry(shape=2)}), "shape must be a list"),
    "shape_of_bools": (packed({"logits": entry(shape=[True, 2])}), "shape must be a list of non"),
    "shape_of_strings": (packed({"logits": entry(shape=["2"])}), "shape must be a list"),
    "negative_shape": (packed({"logits": entry(shape=[-2])}), "number '-2': shapes and offsets"),
    "minus_zero": (packed('{"logits": -0}'), "number '-0'"),
    "float_shape": (packed({"logits": entry(shape=[2.0])}), "number '2.0'"),
    "exponent": (packed('{"logits": 1e3}'), "number '1e3'"),
    "nan": (packed('{"logits": NaN}'), "number 'NaN'"),
    "infinity": (packed('{"logits": -Infinity}'), "number '-Infinity'"),
    "5000_digits": (packed('{"logits": 1%s}' % ("0" * 5000)), r"number '10{59}'\.\.\.:"),
    "33_dimensions": (
        packed({"logits": entry(shape=[1] * 33, offsets=[0, 4])}, bytes(4)),
        "33 dimensions, but at most 32",
    ),
    "shape_too_small": (
        packed({"logits": entry(shape=[1])}, bytes(8)),
        r"logits: shape \[1\] of float32 takes 4 bytes, but 8 are there",
    ),
    "product_wraps_to_0": (
        packed({"logits": entry(shape=[2**32, 2**32], offsets=[0, 0])}),
        r"takes more than 2\*\*63 bytes, but 0 are there",
    ),
    "product_wraps_to_8": (
        packed({"logits": entry(shape=[2**61 + 2], offsets=[0, 8])}, bytes(8)),
        r"takes more than 2\*\*63 bytes, but 8 are there",
    ),
    "product_2**2015": (
        packed({"logits": entry(shape=[2**63] * 32, offsets=[0, 8])}, bytes(8)),
        r"takes more than 2\*\*63 bytes",
    ),
    # offsets
    "three_offsets": (packed({"logits": entry(offsets=[0, 4, 8])}, bytes(8)), "list of 2 non-neg"),
    "hole_first": (packed({"logits": entry(offsets=[1, 9])}, bytes(9)), "must start at 0"),
    "end_before_begin": (
        packed({"logits": entry(offsets=[0, 8]), "labels": entry(offsets=[8, 0])}, bytes(8)),
        r"labels: data_offsets \[8, 0\] do not fit",
    ),
    "past_the_end": (packed({"logits": entry()}, bytes(7)), "end within the 7 bytes"),
    "hole": (
        packed({"logits": entry(), "labels": entry(offsets=[9, 17])}, bytes(17)),
        "labels: .* must start at 8",
    ),
    "overlap": (
        packed({"logits": entry(), "labels": entry(offsets=[4, 12])}, bytes(12)),
        "labels: .* must start at 8",
    ),
    "the_same_bytes_twice": (
        packed({"logits": entry(), "labels": entry()}, bytes(8)),
        "must start at 8",
    ),
    "trailing_byte": (packed({"logits": entry()}, bytes(9)), "1 bytes after the last tensor"),
    "data_without_tensors": (packed({}, bytes(3)), "3 bytes after the last tensor"),
    # metadata
    "metadata_null_key": (packed({"__metadata__": {"a": None, "b": 1}}), "values are strings"),
    "metadata_is_a_list": (packed({"__metadata__": []}), "values are strings"),
    "metadata_number": (packed({"__metadata__": {"a": 1}}), "values are strings"),
    "metadata_surrogate": (packed('{"__metadata__": {"a": "\\udfff"}}'), "lone surrogates"),
    "metadata_surrogate_key": (packed('{"__metadata__": {"\\udfff": ""}}'), "lone surrogates"),
}
