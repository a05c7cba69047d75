"""Logs on standard error: text for a person, or one JSON object a line (--log_format=json) for a log system."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

LOG_FORMAT: dict[str, Any] = {
    "choices": ("text", "json"),
    "default": "text",
    "help": "text, or json: one object a line on stderr, with launch, campaign, retailer and batch (text)",
}
"""The settings of --log_format, which launch and rebatch have."""
FIELDS = ("launch", "campaign", "retailer", "batch", "counts")
"""What a line is about: a log call gives these as `extra`, and JSON lines have each as a field of its own."""
_log = logging.getLogger("campaigns")
_EVERY_S = 10.0


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, message, the FIELDS that it has, and its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {field: getattr(record, field) for field in FIELDS if hasattr(record, field)}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def configure_logs(form: str) -> None:
    """Makes every line on standard error, Beam's too, JSON; `text` leaves Python's own logging as it is."""
    if form == "json":
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logging.getLogger().handlers = [handler]
        _log.setLevel(logging.INFO)


def logs_are_json() -> bool:
    """Whether `configure_logs` chose JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def say(text: str, level: int = logging.INFO, **fields: Any) -> None:
    """Prints a line to standard error, or logs it where logs are JSON, with some of FIELDS. A signal handler may call
    it: the terminal may be closed, or the stream in use."""
    with suppress(OSError, RuntimeError):
        if logs_are_json():
            _log.log(level, text, extra=fields)
        else:
            print(text, file=sys.stderr, flush=True)


def count_log(describe: Callable[[dict[str, int]], str]) -> Callable[[dict[str, int]], None]:
    """A function that prints or logs counts, at most every ten seconds, in the words of `describe`."""
    logged = float("-inf")

    def show(counts: dict[str, int]) -> None:
        nonlocal logged
        if time.monotonic() - logged >= _EVERY_S:
            logged = time.monotonic()
            say(describe(counts), counts=counts)

    return show
