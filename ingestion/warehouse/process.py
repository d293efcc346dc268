"""The process of an embedded PostgreSQL: started, stopped, and one at a time."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingestion.errors import UserError
from ingestion.warehouse import server_settings
from ingestion.warehouse.machine import (
    MEGABYTE,
    free_text,
    has_little_shared_memory,
    port_taken,
    process_exists,
    refuse_taken,
)
from ingestion.warehouse.paths import make_state_dir
from ingestion.warehouse.programs import Programs, error_line
from ingestion.warehouse.state import ServerState

LOG_LIMIT = 10 * MEGABYTE  # a longer log is put aside at the next start
TIMEOUT_SECONDS = (
    300  # seconds for a start (recovery after a crash replays up to max_wal_size) or a stop
)


class ServerProcess(ServerState):
    """An embedded server's process, run by the wheel's programs."""

    def __init__(self, home: Path | None = None) -> None:
        super().__init__(home)
        self.programs = Programs(self.outside, lambda: self.data)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out meanwhile, and put what the file system says in plain words."""
        try:
            make_state_dir(self.home)
            with (self.home / "server.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise self.failure("cannot work here", str(error)) from error

    @property
    def shut_down_cleanly(self) -> bool:
        """Whether the data are those of a server that was stopped, and so are whole."""
        said = self.programs.run("pg_controldata", str(self.data)).stdout
        return re.search(r"cluster state: +shut down\n", said) is not None

    def start_process(self, port: int) -> None:
        """Start PostgreSQL, under ``locked``.

        Raises:
            UserError: it does not start.
        """
        server_settings.refuse_other_version(self.data, self.programs.major())
        deadline = time.monotonic() + 10
        while self.noted_pid() and port_taken(port) and time.monotonic() < deadline:
            time.sleep(0.1)  # a killed server takes a moment to let go of it
        refuse_taken(port)
        if os.geteuid() == 0 and self.data.stat().st_uid == 0:
            self.programs.own(self.data)  # after a chown -R of the clone, say
        if (pid := self.noted_pid()) and process_exists(pid):
            # a killed server's number that is another program's by now: PostgreSQL would take that
            # program for the server
            (self.data / "postmaster.pid").unlink()
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        server_settings.renew(self.data)
        options = f"-p {port}"
        if has_little_shared_memory():
            options += " -c dynamic_shared_memory_type=sysv"

        while True:
            written = self.log.stat().st_size if self.log.exists() else 0
            started = self._pg_ctl("start", f"--log={self.log}", f"--options={options}")
            if not started.returncode:
                return
            said = started.stdout + started.stderr
            if self.log.exists():
                with self.log.open("rb") as log:
                    log.seek(written)
                    said += "\n" + log.read().decode(errors="replace")
            # workers of a killed server take a moment to notice that it is gone
            if "shared memory block" not in said or time.monotonic() > deadline:
                raise self.failure("does not start", said)
            time.sleep(0.2)

    def stop_process(self, mode: str = "fast") -> bool:
        """Stop PostgreSQL, under ``locked``; False when it was not running."""
        if not self.running:
            return False
        stopped = self._pg_ctl("stop", f"--mode={mode}")
        if stopped.returncode and self.running:
            raise self.failure("does not stop", stopped.stdout + stopped.stderr)
        return True

    def _pg_ctl(self, action: str, *args: str) -> subprocess.CompletedProcess:
        wait = ("--wait", f"--timeout={TIMEOUT_SECONDS}", f"--pgdata={self.data}")
        return self.programs.run("pg_ctl", action, *wait, *args)

    def failure(self, what: str, said: str) -> UserError:
        """The error for what a program or the system said."""
        place = next(folder for folder in (self.data, *self.data.parents) if folder.exists())
        if re.search("No space left on device|quota exceeded", said, re.IGNORECASE):
            return UserError(
                f"The embedded PostgreSQL {what}: the disk of {place} is full"
                f" ({free_text(place)} left).\n"
                "Free some space there, then run this again."
            )
        see = f"Its log is {self.log}" if self.log.exists() else f"Its place is {place}"
        return UserError(f"The embedded PostgreSQL {what}: {error_line(said)}\n{see}")
