"""``python -m tests.service.compute.modules``: lossd whose /modules answers what is imported."""

from __future__ import annotations

import sys
from typing import Any

from fastapi.responses import JSONResponse

import service.app
from service import cli


def main() -> None:
    """``lossd`` itself, with one path more."""
    make = service.app.create_app

    def telling(**given: Any) -> Any:
        app = make(**given)

        @app.get("/modules")
        async def modules() -> JSONResponse:
            return JSONResponse(sorted(sys.modules))

        return app

    service.app.create_app = telling  # type: ignore[assignment]
    cli.main()


if __name__ == "__main__":
    main()
