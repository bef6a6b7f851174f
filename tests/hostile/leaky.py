"""``python -m tests.hostile.leaky``: lossd, but a request leaves some ``LEAK`` bytes behind.

What is to find leaks must find this one. Of the requests of a ``Soak`` about half come to the
application, so each of these leaves twice as much.
"""

from __future__ import annotations

from typing import Any

import service.app
from service import cli

LEAK = 1024


class Leak:
    """ASGI middleware that never forgets."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._kept: list[bytearray] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._kept.append(bytearray(2 * LEAK))
        await self._app(scope, receive, send)


def main() -> None:
    """``lossd`` itself, with an application that leaks."""
    make = service.app.create_app

    def leaking(**given: Any) -> Any:
        app = make(**given)
        app.add_middleware(Leak)
        return app

    service.app.create_app = leaking  # type: ignore[assignment]
    cli.main()


if __name__ == "__main__":
    main()
