"""HTTP/1.1 parsers that begin at a request, or at a body in chunks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httptools

_OF_HEADER = ("on_message_begin", "on_url", "on_header", "on_headers_complete")
_OF_BODY = ("on_chunk_header", "on_body", "on_message_complete")
_CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def of_requests(callbacks: Any) -> httptools.HttpRequestParser:
    """Return a parser at the beginning of a request, with httptools' ``callbacks``."""
    parser = httptools.HttpRequestParser(callbacks)
    # By default, bytes behind "Connection: close" are an error, and that request gets no answer.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def of_chunks(callbacks: Any) -> httptools.HttpRequestParser:
    """Return a parser at the beginning of a body in chunks, for ``callbacks`` past the header.

    It has read a header of our own, silently: the client's asks for an upgrade, and httptools reads
    no body after one that does.
    """
    silent = True

    def later(callback: Callable[..., None]) -> Callable[..., None]:
        return lambda *given: None if silent else callback(*given)

    heard = {name: later(getattr(callbacks, name)) for name in _OF_HEADER}
    heard |= {name: getattr(callbacks, name) for name in _OF_BODY}
    parser = of_requests(SimpleNamespace(**heard))
    parser.feed_data(_CHUNKED)
    silent = False
    return parser
