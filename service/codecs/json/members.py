"""Members of a JSON object, one at a time: keys and short values by the standard library.

Tensors are read by ``tensor`` instead: the limits here do not bound them, and no tensor is ever a
Python list.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from service.codecs.base import shown
from service.codecs.json.tensor import token_at
from service.errors import DecodeError

# Bytes of a body's values besides tensors' elements. Bounds how long the parser holds the GIL, how
# deep it recurses, and its memory, as a list takes 56 bytes for two of text.
VALUE_LIMIT = 1 << 16
KEY_LIMIT = 1 << 10
# Bytes of a value that are decoded at first, and the factor for each next try.
_FIRST_WINDOW, _GROWTH = 1 << 9, 8
_DEEPEST = 32  # levels of lists and objects in one value; none needs more than three

_CLOSING = {"}": "brace of the object", "]": "bracket of the list"}
_PLAIN = re.compile(rb'"([ !#-\[\]-~]{0,64}+)"')  # short text without escapes, as most are
_SPACE = re.compile(rb"[ \t\n\r]{1,65536}+")  # so many with the GIL held


def open_body(body: memoryview, example: str) -> tuple[int, bool]:
    """Return where the first key starts and True; where the object ends and False without one.

    ``example`` is a whole body, for the error.
    """
    if bytes(body[:3]) == b"\xef\xbb\xbf":
        raise DecodeError("the body starts with a byte order mark: send it without", where="byte 0")
    at = _skip_space(body, 0)
    if byte_at(body, at) != b"{":
        raise DecodeError(
            f"the body must be one JSON object in UTF-8, such as {example}, but starts with "
            f"{token_at(body, at)}",
            where=f"byte {at}",
        )
    return enter(body, at, "}")


def close_body(body: memoryview, at: int) -> None:
    """Raise ``DecodeError`` unless nothing but space follows from ``at`` on."""
    at = _skip_space(body, at)
    if at < len(body):
        raise DecodeError(
            f"{len(body) - at:,} bytes follow the object, from {token_at(body, at)} on",
            where=f"byte {at}",
        )


def enter(body: memoryview, at: int, closing: str) -> tuple[int, bool]:
    """Return where the first member of the list or object at ``at`` starts, and if it has one."""
    at = _skip_space(body, at + 1)
    empty = byte_at(body, at) == closing.encode()
    return at + empty, not empty


def key_at(body: memoryview, at: int) -> tuple[str, int]:
    """Return the key at ``at``, and where its value starts."""
    if byte_at(body, at) != b'"':
        raise DecodeError(f"{token_at(body, at)} where a key in quotes belongs", where=f"byte {at}")
    key, at = value_at(body, at, KEY_LIMIT, "a key")
    at = _skip_space(body, at)
    if byte_at(body, at) != b":":
        raise DecodeError(
            f"{token_at(body, at)} where a colon belongs, after key {shown(key)}",
            where=f"byte {at}",
        )
    return key, _skip_space(body, at + 1)


def next_at(body: memoryview, at: int, closing: str = "}") -> tuple[int, bool]:
    """Return where the next member starts and True; the end behind ``closing`` and False."""
    at = _skip_space(body, at)
    more = byte_at(body, at) == b","
    if not more and byte_at(body, at) != closing.encode():
        raise DecodeError(
            f"{token_at(body, at)} where a comma or the closing {_CLOSING[closing]} belongs",
            where=f"byte {at}",
        )
    return _skip_space(body, at + 1) if more else at + 1, more


def _is_deep(value: Any) -> bool:
    """Return whether ``value`` nests too deeply: Python 3.13 decodes thousands of levels."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(_DEEPEST):
        if not level:
            return False
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, list | dict)
        ]
    return bool(level)


def value_at(body: memoryview, start: int, limit: int, what: str) -> tuple[Any, int]:
    """Return the JSON value at ``start``, of at most ``limit`` bytes, and its end.

    At most some eight times the value's length is decoded: a body may hold thousands of short ones.
    """
    plain = _PLAIN.match(body, start)
    if plain is not None and plain.end() - start <= limit:
        return plain[1].decode(), plain.end()
    size, value, problem = _FIRST_WINDOW, None, ""
    while True:
        raw = bytes(body[start : start + min(size, limit)])
        last = size >= limit or start + len(raw) == len(body)
        text, broken = _utf8(raw, last)
        at = len(text)
        try:
            value, at = _DECODER.raw_decode(text)
            if _is_deep(value):
                raise RecursionError
        except RecursionError:
            problem, at, last = "is nested too deeply", 0, True
        except json.JSONDecodeError as error:
            unfinished = error.pos >= len(text) or error.msg.startswith("Unterminated string")
            problem, at = f"is not JSON: {error.msg.lower()}", error.pos
            if broken and unfinished:
                problem, at = "is not UTF-8", 0
        except ValueError as error:
            problem, at = str(error), 0
        else:
            if at < len(text) or last or broken:
                return value, start + _length(text[:at])
        if last or broken:
            break
        size *= _GROWTH
    if start + limit < len(body):
        problem += f", or longer than {limit:,} bytes"
    raise DecodeError(f"{what} {problem}", where=f"byte {start + _length(text[:at])}")


def _utf8(raw: bytes, last: bool) -> tuple[str, bool]:
    """Return the text that ``raw`` begins with, and whether bytes that are not UTF-8 follow.

    ``raw`` may end within a character unless it is the ``last`` part.
    """
    try:
        return raw.decode(), False
    except UnicodeDecodeError as error:
        cut = error.end == len(raw) and error.reason == "unexpected end of data"
        return raw[: error.start].decode(), last or not cut


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("has a key twice")
    return found


def _integer(text: str) -> int:
    # Longer ones take long to convert.
    value = int(text) if len(text) <= 20 else 2**64
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"holds {shown(text)}, which is more than 64 bits hold")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"holds {shown(text)}, which is more than float64 holds")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite)


def byte_at(body: memoryview, at: int) -> bytes:
    return bytes(body[at : at + 1])


def _skip_space(body: memoryview, at: int) -> int:
    while space := _SPACE.match(body, at):
        at = space.end()
    return at
