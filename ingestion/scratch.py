"""``marquee scratch``: a command whose warehouse is a throw-away PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from ingestion import interrupts
from ingestion.errors import UserError
from ingestion.evidence import run_id
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.profiles import write_profiles


def run_in_scratch(command: Sequence[str]) -> int:
    """Run a command whose warehouse is a throw-away PostgreSQL; returns its exit code."""
    folder = Path(tempfile.mkdtemp(prefix="marquee-scratch-"))
    folder.chmod(0o711)  # the server's user must reach its data when this runs as root
    scratch = Server(folder / "state")
    started: list[subprocess.Popen] = []
    try:
        end = partial(_end_scratch, scratch, folder, started)
        with interrupts.giving_back(end, at_once=scratch.abandon):
            return _run_in_scratch(command, scratch, folder, started)
    except FileNotFoundError as error:
        raise UserError(f"There is no command {command[0]!r}.") from error
    finally:
        scratch.delete()
        shutil.rmtree(folder, ignore_errors=True)


def _run_in_scratch(
    command: Sequence[str], scratch: Server, folder: Path, started: list[subprocess.Popen]
) -> int:
    scratch.start()
    write_profiles(scratch, folder / "profiles.yml")
    others = ("PG", run_id.VARIABLE)  # what runs in there has its own
    env = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    env |= {
        "DBT_PROFILES_DIR": str(folder),
        "DBT_TARGET_PATH": str(folder / "target"),
        "DBT_LOG_PATH": str(folder / "logs"),
        "MARQUEE_STATE_DIR": str(folder / "state"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}",
    }
    started.append(subprocess.Popen(list(command), env=env))
    return started[0].wait()


def _end_scratch(scratch: Server, folder: Path, started: list[subprocess.Popen]) -> None:
    """After an interrupt: the command first, which may tidy up, then the server and its data."""
    for process in started:
        if not sys.stdin.isatty():  # there Ctrl-C has reached it, too
            process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
    interrupts.end_programs()
    scratch.abandon()
    shutil.rmtree(folder, ignore_errors=True)
