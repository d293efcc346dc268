"""What this machine gives a server: ports, disk, shared memory."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

from ingestion.errors import UserError

HOST = "127.0.0.1"
MEGABYTE = 1024**2


def port_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL itself does
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def free_port(wished: int) -> int:
    """The wished port or one of the next twenty if free, else any free one."""
    for port in range(wished, min(wished + 20, 65536)):
        if not port_taken(port):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def refuse_taken(port: int) -> None:
    if port_taken(port):
        raise UserError(
            f"Port {port} on {HOST} is used by another program; the embedded PostgreSQL needs it.\n"
            "Stop that program, or choose another port for good: marquee db start --port N"
        )


def process_exists(pid: int) -> bool:
    import psutil

    return psutil.pid_exists(pid)


def size_text(count: int) -> str:
    megabytes = count / MEGABYTE
    return f"{megabytes:,.0f} MB" if megabytes < 10_000 else f"{megabytes / 1024:,.0f} GB"


def free_text(place: Path) -> str:
    return size_text(shutil.disk_usage(place).free)


def has_little_shared_memory() -> bool:
    """Whether parallel queries would fail: containers get 64 MB of /dev/shm by default."""
    folder = Path("/dev/shm")  # noqa: S108
    if sys.platform != "linux":
        return False
    return not folder.exists() or shutil.disk_usage(folder).total < 1024 * MEGABYTE
