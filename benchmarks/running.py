"""What the benchmarks that pair ways to land share: a command that is timed, a fresh database."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ingestion.warehouse.target import Target

MARQUEE = [sys.executable, "-m", "ingestion"]


class Run(NamedTuple):
    """Seconds of wall and of processor time of a command, and the peak of its memory in MB."""

    seconds: float
    cpu: float
    memory: float


def run(command: list[str], target: Target, state: Path, folder: Path | None = None) -> Run:
    """Run a command to its end against a database.

    Linux counts a process's memory from its parent's at the time of the fork: about 40 MB here.

    Args:
        command: what runs.
        target: gets into its environment.
        state: a folder for what it keeps and prints.
        folder: where it stands; the one of this process if none is given.

    Raises:
        SystemExit: the command has failed; with the end of its output.
    """
    environment = os.environ | target.libpq_env() | {"DLT_DATA_DIR": str(state)}
    environment |= {"BENCH_STATE": str(state), "RUNTIME__DLTHUB_TELEMETRY": "false"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or each start would compile all modules
    with (state / "output").open("w+") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command[:3])} failed:\n{output.read()[-2000:]}")
    megabyte = 1e6 if sys.platform == "darwin" else 1e6 / 1024
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / megabyte)


@contextmanager
def database(server: Target, name: str, template: str = "template0") -> Iterator[Target]:
    """A database that is made from a template, and dropped at the end."""
    remove = f"drop database if exists {name} with (force)"
    execute(server, remove, f"create database {name} template {template} strategy file_copy")
    try:
        yield replace(server, dbname=name)
    finally:
        execute(server, remove)


def execute(target: Target, *statements: str) -> None:
    """Run statements, each by itself, over a connection of their own."""
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in statements:
            cursor.execute(statement)
