"""WAL of the embedded server on its way to a store: a process that sends what PostgreSQL wrote.

PostgreSQL puts finished WAL into a folder on this disk, as it does for an archive on a disk. This
process runs beside the server, as whoever started that and with the cloud's credentials of that
environment, which neither PostgreSQL nor any file has. A file goes from the folder once the store
has it. Where nobody sends, WAL stays in the folder; the next start of the server starts it again.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from ingestion.object_store import safe_line
from ingestion.terminal import one_line
from ingestion.warehouse import server_settings
from ingestion.warehouse.backup.catalog import Backups
from ingestion.warehouse.paths import PROJECT_DIR, write_private
from ingestion.warehouse.state import ServerState

PAUSE = 2.0  # seconds between looks into the folder
LOCK = "sending.lock"  # held by who sends
FAILED = "sending.failed"  # below the state folder: why the last attempt failed


def ensure(server: ServerState) -> None:
    """Start the process that sends, where the archive is in a store and nobody sends."""
    if "://" not in server_settings.archive(server.data).get("place", ""):
        return
    with (server.home / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # somebody does
    with (server.home / "sending.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "ingestion.warehouse.backup.sending", str(server.home)],
            cwd=PROJECT_DIR,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def waiting(server: ServerState) -> list[float]:
    """When the files were written that are not in the store yet, in seconds since 1970."""
    if "://" not in server_settings.archive(server.data).get("place", ""):
        return []
    found = server_settings.wal_folder(server.data).glob("[0-9A-F]*")
    return [path.stat().st_mtime for path in found]


def problem(server: ServerState) -> str:
    """Why nothing is sent, if that is so."""
    with suppress(OSError):
        return (server.home / FAILED).read_text(encoding="utf-8")
    return ""


def send(server: ServerState) -> bool:
    """Send what is in the folder, the oldest first; True when nothing is left there."""
    noted = server_settings.archive(server.data)
    if "://" not in noted.get("place", ""):
        return True
    folder, failed = server_settings.wal_folder(server.data), server.home / FAILED
    try:
        place = Backups(noted["place"])
        for path in sorted(folder.glob("[0-9A-F]*")):
            key = f"{noted['name']}/wal/{path.name}"
            content = path.read_bytes()
            if place.exists(key) and place.read(key) != content:
                raise FileExistsError(f"{key} is there with another content")  # noqa: TRY301
            place.put(key, content)
            path.unlink()
    except Exception as error:
        write_private(failed, one_line(safe_line(error)))
        return False
    failed.unlink(missing_ok=True)
    return True


def _main(home: str) -> None:
    server = ServerState(Path(home))
    with (server.home / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another one sends
        while server.home.exists():
            runs = server.running
            done = send(server)
            if not runs and (done or not server.running):
                return
            time.sleep(PAUSE)


if __name__ == "__main__":
    os.umask(0o077)
    _main(sys.argv[1])
