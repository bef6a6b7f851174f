"""Parsers of HTTP/1.1 for a connection's next bytes: a request, or the rest of one in chunks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httptools

_OF_HEADER = ("on_message_begin", "on_url", "on_header", "on_headers_complete")
_OF_BODY = ("on_chunk_header", "on_body", "on_message_complete")
_CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def of_requests(callbacks: Any) -> httptools.HttpRequestParser:
    """A parser at the beginning of a request, with httptools' ``callbacks``."""
    parser = httptools.HttpRequestParser(callbacks)
    # So that a request behind one that says "Connection: close" does not cost that its answer.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def of_chunks(callbacks: Any) -> httptools.HttpRequestParser:
    """A parser at the beginning of a body in chunks, whose header ``callbacks`` have had already.

    It has read a header of our own, of which they hear nothing: the one that came may ask for an
    upgrade, and httptools reads no body after those.
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
