"""``marquee run --json``: one document for programs, of what the summary says to people."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from ingestion import interrupts
from ingestion.errors import UserError, error_line
from ingestion.evidence import run_id
from ingestion.evidence.recorder import exit_code
from ingestion.terminal import printable


@contextmanager
def documented() -> Iterator[dict[str, Any]]:
    """Send all that is printed to standard error, and at the end the document to standard output.

    Yields what the document holds; the run adds to it.
    """
    began, started = time.monotonic(), datetime.now(timezone.utc)
    sys.stdout.flush()
    out = os.dup(1)
    os.dup2(2, 1)
    note: dict[str, Any] = {
        "run_id": run_id.settle(),
        "status": "running",
        "exit_code": None,
        "error": None,
        "started_at": started.isoformat(),
    }

    def write(status: str, code: int | None, error: str | None) -> None:
        note.update(status=status, exit_code=code, error=error)
        note["seconds"] = round(time.monotonic() - began, 3)
        text = json.dumps(note, indent=2, default=str, ensure_ascii=False) + "\n"
        with os.fdopen(os.dup(out), "w", encoding="utf-8", errors="replace") as file:
            file.write(text)

    with interrupts.giving_back(lambda: write("interrupted", None, None)):
        try:
            yield note
        except BaseException as error:
            interrupts.await_end()
            said = error.message if isinstance(error, UserError) else error_line(error)
            write("failed", exit_code(error), printable(said))
            raise
        write("succeeded", 0, None)
