"""Forms of the log's lines: text for people, JSON for collectors of logs."""

from __future__ import annotations

import logging

import orjson
from uvicorn.logging import DefaultFormatter

from service.cli.logs import LONGEST_LINE, now

# A line that is cut would be no JSON: of a traceback, the last calls say most.
_LONGEST_TEXT = LONGEST_LINE // 4


class Text(DefaultFormatter):
    """Formatter for people: time, level and message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelprefix)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return now(record.created)


class Json(logging.Formatter):
    """Formatter for collectors of logs: a JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        made = {
            "time": now(record.created),
            "level": record.levelname.lower(),
            "message": record.getMessage()[:_LONGEST_TEXT],
            "logger": record.name,
        }
        if record.exc_info:
            made["exception"] = self.formatException(record.exc_info)[-_LONGEST_TEXT:]
        return orjson.dumps(made).decode()
