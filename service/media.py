"""Which format a body is in, and in which its answer is wanted (RFC 9110, sections 8.3, 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from service.codecs import BY_MEDIA_TYPE, CODECS, Codec
from service.codecs.base import shown
from service.errors import HeaderTooLarge, NotAcceptable, UnsupportedMediaType

# Bytes of a header field that says a format: browsers send some 200. To read a list of that many
# takes at most 1 ms, and one of the 32 KiB that a header may have 45 ms.
_LONGEST = 2048

_QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")
_KNOWN = ", ".join(codec.media_types[0] for codec in CODECS)


def values(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """The value of every header field of ``fields`` that is called ``name``, in lower case.

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
    """The codec of a body, from its Content-Type and Content-Encoding header fields.

    Raises ``UnsupportedMediaType`` unless there is exactly one type, and it is one that is read,
    in UTF-8 if it is text and not compressed as a whole.
    """
    for encoding in content_encodings:
        if encoding.strip().lower() not in ("", "identity"):
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
    essence, parameters = _parsed(content_types[0])
    codec = BY_MEDIA_TYPE.get(essence)
    charset = parameters.get("charset", "utf-8").strip('"').lower()
    if codec is None or charset not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaType(
            f"Content-Type {shown(content_types[0])} is not read: the formats are {_KNOWN}",
            field="content-type",
        )
    return codec


def of_answer(accepts: Sequence[str], own: Codec) -> tuple[Codec, str]:
    """The codec and the media type to answer with, from the Accept header fields.

    The client's preference decides; where it has none, or sent no Accept, the answer has the
    format ``own`` of the request. Raises ``NotAcceptable`` where the client takes none of ours.
    """
    ranges = [_parsed(item) for field in accepts for item in field.split(",") if item.strip()]
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


def _parsed(value: str) -> tuple[str, dict[str, str]]:
    """``text/plain; q=0.5`` as ``("text/plain", {"q": "0.5"})``, names in lower case."""
    essence, *rest = value.split(";")
    pairs = (item.partition("=") for item in rest)
    return essence.strip().lower(), {name.strip().lower(): text.strip() for name, _, text in pairs}


def _quality(media_type: str, ranges: Sequence[tuple[str, dict[str, str]]]) -> float:
    """How much the client wants ``media_type``: what the most specific range that fits says."""
    main = media_type.partition("/")[0]
    for name in (media_type, f"{main}/*", "*/*"):
        fits = [parameters.get("q", "1") for essence, parameters in ranges if essence == name]
        if fits:
            return max(float(text) if _QUALITY.fullmatch(text) else 0.0 for text in fits)
    return 0.0
