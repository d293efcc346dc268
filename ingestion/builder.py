"""Builds of the transaction models beside a stream, in one long-lived dbt process.

Starting dbt and reading the project takes longer than a step of the models. So a process of its own
does that once, and builds whenever it is told to: ``python -m ingestion.builder [TARGET]`` takes a
line for each build on standard input, and answers with a line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from ingestion.errors import UserError
from ingestion.warehouse.paths import PROJECT_DIR, STATE_DIR

SELECT = "source:transactions+"


class Builder:
    """Builds every so many seconds, if something has landed since.

    Args:
        every: seconds from the start of a build to that of the next; one that takes longer is
            waited for.
        target_name: of the profile, as in dbt.
        say: gets a line about each build.
    """

    def __init__(self, every: float, target_name: str | None, say: Callable[[str], None]) -> None:
        self._every, self._say = every, say
        self._began, self._is_building, self._rows = -every, False, 0
        self._answers: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        folder = STATE_DIR / "builder"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ingestion.builder", *([target_name] if target_name else [])],
            cwd=PROJECT_DIR,
            env=os.environ
            # and so many builds leave little evidence each
            | {"DBT_TARGET_PATH": str(folder / "target"), "MARQUEE_EVIDENCE_NODES": "failed"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        threading.Thread(target=self._listen, name="builder", daemon=True).start()

    def tick(self, rows: int) -> None:
        """To be called often, with the number of rows that have landed in all.

        Raises:
            UserError: the process has ended.
        """
        self._hear()
        is_due = time.monotonic() - self._began >= self._every
        if not self._is_building and is_due and rows > self._rows:
            self._began, self._is_building, self._rows = time.monotonic(), True, rows
            self._tell("build\n")

    def close(self) -> None:
        """Let a build that is under way end, and the process with it."""
        self._tell("")
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _tell(self, line: str) -> None:
        if self._process.stdin is None:
            return
        try:
            if line:
                self._process.stdin.write(line)
                self._process.stdin.flush()
            else:
                self._process.stdin.close()
        except OSError:
            self._is_building = False

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            self._answers.put(json.loads(line))
        self._answers.put(None)

    def _hear(self) -> None:
        try:
            answer = self._answers.get_nowait()
        except Empty:
            return
        if answer is None:
            raise UserError(
                "The process that builds has ended.\nSee logs/dbt.log, then run this again."
            )
        self._is_building = False
        if answer["error"]:
            self._rows = 0  # the next build takes in what this one did not
            first = answer["error"].splitlines()[0]
            self._say(f"{time.strftime('%H:%M:%S')}  not built: {first}")
        else:
            self._say(f"{time.strftime('%H:%M:%S')}  built in {answer['seconds']:.1f} s")


def main() -> None:
    """The process that builds."""
    from ingestion import dbt_runner
    from ingestion.warehouse import access, libpq, paths

    libpq.settle()
    paths.settle()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # dbt prints
    target = access.ready(sys.argv[1] if len(sys.argv) > 1 else None)
    manifest = None
    for _ in sys.stdin:
        began, error = time.monotonic(), None
        try:
            manifest = manifest or dbt_runner.manifest(target)
            dbt_runner.dbt("run", target, "--select", SELECT, label="Building", manifest=manifest)
        except UserError as found:
            error = found.message
        answers.write(json.dumps({"seconds": time.monotonic() - began, "error": error}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
