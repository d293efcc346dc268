"""Lines of JSON in one shape, whoever says them: marquee, dbt, dlt, or a library's logger.

``marquee --log-format json ...``, or MARQUEE_LOG_FORMAT=json for all commands. Each line has time
(UTC), level, event, run_id, logger and message.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from datetime import datetime, timezone
from types import TracebackType
from typing import Any

from ingestion.terminal import lines_are_json, log, printable

VARIABLE = "MARQUEE_LOG_FORMAT"
FORMATS = ("text", "json")
_LEVELS = {"warn": "warning", "critical": "error", "fatal": "error"}
_QUIET = ("debug", "test")


class _Handler(logging.Handler):
    """Prints what Python's loggers say; a formatter that somebody sets changes nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        name, _, _ = record.name.partition(".")
        try:
            message = printable(record.getMessage())
        except Exception:  # a message that does not fit its values is said without them
            message = printable(record.msg)
        if record.exc_info and record.exc_info[1] is not None:
            message = f"{message}: {record.exc_info[1]}"
        log(
            message,
            _LEVELS.get(level, level),
            record.funcName or "log",
            logger=name,
            time=datetime.fromtimestamp(record.created, tz=timezone.utc),
            err=True,
        )


def settle(chosen: str) -> None:
    """Have all lines from now on in a format, ``text`` or ``json``."""
    if lines_are_json() or not lines_are_json(chosen == "json"):
        return
    handler = _Handler()
    logging.getLogger().addHandler(handler)
    ours = logging.getLogger("dlt")
    ours.addHandler(handler)  # which dlt takes in place of one of its own
    ours.propagate = False  # as dlt has it, once it is there
    logging.captureWarnings(True)
    sys.excepthook = _crashed
    threading.excepthook = lambda it: _crashed(it.exc_type, it.exc_value, it.exc_traceback)
    sys.unraisablehook = lambda it: _crashed(it.exc_type, it.exc_value, it.exc_traceback)


def _crashed(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """Say what nobody has caught, with where it was, in one line of JSON."""
    said = "".join(traceback.format_exception(kind, error, trace)).rstrip()
    log(printable(said), "error", "crashed", err=True)


def follow_dbt(event: Any) -> None:
    """Callback of dbt's runner: print what dbt would have printed."""
    level = event.info.level
    message = printable(event.info.msg).strip()
    if level in _QUIET or not message or not lines_are_json():
        return
    facts = {}
    node = getattr(event.data, "node_info", None)
    if node is not None and node.unique_id:
        facts = {"node": node.unique_id, "node_status": node.node_status}
    moment = event.info.ts.ToDatetime(tzinfo=timezone.utc)
    log(message, _LEVELS.get(level, level), event.info.name, facts, logger="dbt", time=moment)
