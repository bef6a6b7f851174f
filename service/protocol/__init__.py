"""HTTP/1.1 connections: limits, deadlines, and large bodies that land in leased memory.

``connection`` reads the socket, ``requests`` parses it, ``answer_order`` orders the answers,
``cycle`` writes them. This is the only package that knows uvicorn's insides: the rest of the
service works on any ASGI server.
"""

from service.protocol.connection import Http
from service.protocol.limits import Limits

__all__ = ["Http", "Limits"]
