"""Formats of a body and of its answer, from a header's fields (RFC 9110, sections 8.3, 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from service.codecs import BY_MEDIA_TYPE, CODECS, Codec
from service.codecs.base import shown
from service.errors import HeaderTooLarge, NotAcceptable, UnsupportedMediaType

# Bytes of a header field that says a format: browsers send some 200. To read a list of that many
# takes at most 1 ms, and one of the 32 KiB that a header may have 45 ms.
_LONGEST = 2048

# RFC 9110 wants a digit before the point and at most three after it; Java's clients send ".2".
_QUALITY = re.compile(r"0*\.\d+|0+\.?|0*1(\.0*)?")
# What separators divide, but for those in quotes. Possessive, so that no text is matched twice.
_ELEMENT = re.compile(r'(?:[^,"]|"[^"]*+"|")++')
_PARAMETER = re.compile(r'(?:[^;"]|"[^"]*+"|")++')
# UTF-8 and its part ASCII, without the hyphens, underscores and spaces that people put in.
_UTF_8 = frozenset({"", "utf8", "unicode11utf8", "csutf8", "ascii", "usascii"})
_ODDMENTS = re.compile(r"[\W_]+")
_KNOWN = ", ".join(codec.media_types[0] for codec in CODECS)


def values(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """Find the value of every header field of ``fields`` that is called ``name``, in lower case.

    Raises ``HeaderTooLarge`` where they are longer than any client's.
    """
    found = [value.decode("latin-1") for called, value in fields if called == name]
    size = sum(map(len, found))
    if size > _LONGEST:
        called = name.decode().title()
        raise HeaderTooLarge(
            f"{called} may have at most {_LONGEST:,} bytes, not {size:,}", field=name.decode()
        )
    return found


def of_request(content_types: Sequence[str], content_encodings: Sequence[str] = ()) -> Codec:
    """Find the codec of a body, from its Content-Type and Content-Encoding header fields.

    Raises ``UnsupportedMediaType`` unless there is exactly one type, and it is one that is read,
    in UTF-8 if it is text and not compressed as a whole.
    """
    for encoding in listed(content_encodings):
        if encoding != "identity":
            raise UnsupportedMediaType(
                f"Content-Encoding {shown(encoding)} is not read: send the body as it is, or as a"
                " compressed npz",
                field="content-encoding",
            )
    if len(content_types) != 1:
        count = "no" if not content_types else "more than one"
        raise UnsupportedMediaType(
            f"{count} Content-Type: name one of {_KNOWN}", field="content-type"
        )
    essence, parameters = parsed(content_types[0])
    codec = BY_MEDIA_TYPE.get(essence)
    if codec is None:
        raise UnsupportedMediaType(
            f"Content-Type {shown(content_types[0])} is not read: the formats are {_KNOWN}",
            field="content-type",
        )
    charset = parameters.get("charset", "")
    # Typed options are JSON's: of the formats, the one that is text.
    if codec.typed and _ODDMENTS.sub("", charset) not in _UTF_8:
        raise UnsupportedMediaType(
            f"charset {shown(charset)} of the Content-Type is not read: send JSON in UTF-8, with"
            f" charset=utf-8 or no charset, or another of the formats {_KNOWN}",
            field="content-type",
        )
    return codec


def of_answer(accepts: Sequence[str], own: Codec) -> tuple[Codec, str]:
    """Choose the codec and the media type to answer with, from the Accept header fields.

    The client's preference decides; where it has none, or sent no Accept, the answer has the
    format ``own`` of the request. Raises ``NotAcceptable`` where the client takes none of ours.
    """
    ranges = [parsed(element) for element in listed(accepts)]
    if not ranges:
        return own, own.media_types[0]
    candidates = [
        (_quality(media_type, ranges), codec is own, codec, media_type)
        for codec in (own, *CODECS)
        for media_type in codec.media_types
    ]
    quality, _, codec, media_type = max(candidates, key=lambda candidate: candidate[:2])
    if quality <= 0:
        raise NotAcceptable(
            f"Accept {shown(', '.join(accepts))} cannot be met: the answer's formats are {_KNOWN}",
            field="accept",
        )
    return codec, media_type


def listed(fields: Iterable[str]) -> list[str]:
    """Elements of header fields that are one list, in lower case, the empty ones left out."""
    elements = (element.strip() for field in fields for element in _ELEMENT.findall(field))
    return [element.lower() for element in elements if element]


def parsed(element: str) -> tuple[str, dict[str, str]]:
    """``Text / Plain; q = ".5"`` as ``("text/plain", {"q": ".5"})``: in lower case, unquoted."""
    essence, *rest = _PARAMETER.findall(element.lower()) or [""]
    pairs = (item.partition("=") for item in rest)
    return "".join(essence.split()), {
        name.strip(): text.strip().strip("\"'").strip() for name, _, text in pairs
    }


def quality(parameters: Mapping[str, str]) -> float:
    """Quality from 0 to 1, which ``q`` says: 0 where that is no such number."""
    text = parameters.get("q", "1")
    return float(text) if _QUALITY.fullmatch(text) else 0.0


def _quality(media_type: str, ranges: Sequence[tuple[str, Mapping[str, str]]]) -> float:
    """Quality of ``media_type``, which the most specific range that fits says."""
    main = media_type.partition("/")[0]
    # A lone star is no range of RFC 9110, but Java and others send it for any type.
    for names in ((media_type,), (f"{main}/*",), ("*/*", "*")):
        fits = [quality(parameters) for essence, parameters in ranges if essence in names]
        if fits:
            return max(fits)
    return 0.0
