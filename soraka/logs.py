"""Logs: a line per event on stderr, as JSON for machines or as text for people."""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from soraka.config import ProcessConfig

DRIVERS = ("kafka", "kazoo", "urllib3")
"""They log every broken connection again and again; our adapters say once what it means."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _TextFormatter(logging.Formatter):
    """A line for people: time, level, event, key=value."""

    def format(self, record: logging.LogRecord) -> str:
        extra = "".join(f" {k}={v}" for k, v in vars(record).items() if k not in _STANDARD)
        return f"{super().format(record)}{extra}"


def configure(config: ProcessConfig) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if config.log_format == "json":
        handler.setFormatter(
            JsonFormatter(
                "{levelname}{name}{message}",
                style="{",
                rename_fields={"levelname": "level", "name": "logger", "message": "event"},
                timestamp=True,
            )
        )
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)
    for driver in DRIVERS:
        logging.getLogger(driver).setLevel(logging.CRITICAL)


def silence() -> None:
    """For a command that tells its outcome by itself: without a handler Python prints events."""
    logging.getLogger().addHandler(logging.NullHandler())
