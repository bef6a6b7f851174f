"""Connections: deadlines and limits, and large bodies read straight into the application's memory.

The only place that knows uvicorn's insides. It composes around uvicorn's own protocol, and all the
rest of the service works on any ASGI server.
"""

from service.protocol.connection import Http
from service.protocol.limits import Limits

__all__ = ["Http", "Limits"]
