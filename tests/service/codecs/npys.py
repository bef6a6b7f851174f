"""npy files that are refused, and how they are made."""

from __future__ import annotations

import io
from typing import Any

import numpy as np


def saved(array: Any, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), version=version, allow_pickle=False)
    return file.getvalue()


def packed(
    header: str, data: bytes = b"", version: bytes = b"\x01\x00", length: int | None = None
) -> bytes:
    size = len(header) if length is None else length
    prefix = b"\x93NUMPY" + version + size.to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return prefix + header.encode("latin-1") + data


def described(
    descr: str = "'<f4'", order: str = "False", shape: str = "(2,)", data: bytes = bytes(8)
) -> bytes:
    return packed(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n", data)


SUPPORTED = "the dtypes are float32, float64, float16, bfloat16, int64"
_NO_START = "must start with the magic string, version"
_NO_DICT = "the header must be a dict of exactly descr"
_NO_TUPLE = "is not a tuple of integers from 0"
REFUSED: dict[str, tuple[bytes, str]] = {
    # before the header
    "empty": (b"", _NO_START),
    "magic": (b"\x92NUMPY" + saved(np.zeros(2))[6:], _NO_START),
    "pickle": (b"\x80\x04K\x01.", _NO_START),
    "version_0": (packed("{}", version=b"\x00\x00"), _NO_START),
    "version_1.1": (packed("{}", version=b"\x01\x01"), _NO_START),
    "version_4": (packed("{}", version=b"\x04\x00"), _NO_START),
    "header_past_the_end": (packed("{}", length=3), _NO_START),
    "header_of_4GB": (packed("{}", version=b"\x02\x00", length=2**32 - 1), "at most 65,536"),
    "header_of_64KB_and_1": (packed(" " * 65537, version=b"\x02\x00"), "at most 65,536"),
    # the dict
    "no_dict": (packed("7"), _NO_DICT),
    "empty_dict": (packed("{}"), _NO_DICT),
    "open_dict": (packed("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)"), _NO_DICT),
    "list": (packed("['descr': '<f4', 'fortran_order': False, 'shape': (2,)}"), _NO_DICT),
    "two_dicts": (packed("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}{}"), _NO_DICT),
    "missing_key": (packed("{'descr': '<f4', 'shape': (2,)}", bytes(8)), _NO_DICT),
    "extra_key": (described(shape="(2,), 'x': True"), _NO_DICT),
    "duplicate_key": (described(shape="(2,), 'shape': (2,)"), _NO_DICT),
    "no_comma": (packed("{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}"), _NO_DICT),
    "two_commas": (described(shape="(2,),"), _NO_DICT),
    "mixed_quotes": (described(descr="'<f4\""), _NO_DICT),
    "escape": (described(descr=r"'\x3cf4'"), _NO_DICT),
    "nul": (packed("\0{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"), _NO_DICT),
    "not_ascii": (described(descr="'<f4'\xa0"), _NO_DICT),
    "call": (described(descr="str('<f4')"), _NO_DICT),
    "descr_is_a_tuple": (described(descr="(4,)"), _NO_DICT),
    "descr_is_a_bool": (described(descr="True"), _NO_DICT),
    "order_is_a_number": (described(order="0"), _NO_DICT),
    "order_is_a_string": (described(order="'False'"), _NO_DICT),
    "9000_parens": (described(shape="(" * 9000), _NO_DICT),
    "9000_braces": (packed("{" * 9000), _NO_DICT),
    "60000_spaces": (described(shape="(" + "1" + " " * 60000 + "1,)"), _NO_TUPLE),
    # dtypes
    "structured": (
        described(descr="[('a', '<f4'), ('b', '<f4')]"),
        "structured dtypes are not read: " + SUPPORTED,
    ),
    "subarray": (described(descr="('<f4', (2,))"), "structured dtypes are not read"),
    "object": (described(descr="'|O'"), "'|O': arrays of objects are pickles"),
    "big_endian": (
        described(descr="'>f4'"),
        r"'>f4': big-endian .* array.astype\(array.dtype.newbyteorder\('<'\)\)",
    ),
    "bool": (described(descr="'|b1'"), r"dtype '\|b1': " + SUPPORTED),
    "complex": (described(descr="'<c8'"), SUPPORTED),
    "string": (described(descr="'<U2'"), SUPPORTED),
    "big_endian_complex": (described(descr="'>c8'"), SUPPORTED),
    "long_double": (described(descr="'<f16'"), SUPPORTED),
    "big_endian_word": (described(descr="'>i'"), "'>i': big-endian"),
    "two_types": (described(descr="'f4,f4'"), f"'f4,f4': {SUPPORTED}"),
    "repeated": (described(descr="'2f4'"), f"'2f4': {SUPPORTED}"),
    "deprecated": (described(descr="'a4'"), f"'a4': {SUPPORTED}"),
    "space": (described(descr="' f4'"), f"' f4': {SUPPORTED}"),
    "object_word": (described(descr="'object'"), "pickles"),
    "huge": (described(descr="'V99999999999999'"), SUPPORTED),
    "no_dtype": (described(descr="''"), SUPPORTED),
    "long_descr": (described(descr=f"'{'f' * 9000}'"), r"'f{60}'\.\.\.: the dtypes"),
    # shapes
    "shape_is_a_number": (described(shape="2"), _NO_DICT),
    "shape_is_a_list": (described(shape="[2]"), _NO_DICT),
    "shape_in_parens": (described(shape="(2)"), r"shape \(2\) is not a tuple"),
    "comma_only": (described(shape="(,)"), _NO_TUPLE),
    "commas": (described(shape="(2,,)"), _NO_TUPLE),
    "shape_of_bools": (described(shape="(True,)"), _NO_DICT),
    "negative": (described(shape="(-2,)"), _NO_DICT),
    "float": (described(shape="(2.0,)"), _NO_DICT),
    "underscore": (described(shape="(1_0,)"), _NO_DICT),
    "long": (described(shape="(2L,)"), _NO_DICT),
    "leading_zero": (described(shape="(02,)"), _NO_TUPLE),
    "two_numbers": (described(shape="(1 1,)"), _NO_TUPLE),
    "20_digits": (described(shape=f"({10**19},)"), _NO_TUPLE),
    "nested": (described(shape="((2,),)"), _NO_DICT),
    "33_dimensions": (described(shape="(" + "1," * 33 + ")"), "33 dimensions, but at most 32"),
    "30000_dimensions": (described(shape="(" + "1," * 30000 + ")"), "30000 dimensions"),
    # sizes
    "no_data": (described(shape="(1000000000000,)", data=b""), "takes 4,000,000,000,000 bytes"),
    "product_wraps_to_0": (
        described(shape="(4294967296, 4294967296)", data=b""),
        r"takes more than 2\*\*63 bytes, but 0 are there",
    ),
    "product_wraps_to_8": (described(shape=f"({2**62 + 2},)"), r"more than 2\*\*63 bytes, but 8"),
    "short": (described(data=bytes(7)), r"\[2\] of float32 takes 8 bytes, but 7 are there"),
    "trailing_byte": (described(data=bytes(9)), r"takes 8 bytes, but 9 are there"),
    "no_dimensions": (described(shape="()"), r"shape \[\] of float32 takes 4 bytes, but 8"),
}
