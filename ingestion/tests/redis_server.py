"""A real Redis for tests: Debian's redis-server, on a port and a socket of its own, in memory."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ingestion.tests.api_server import PATIENCE, until
from ingestion.tests.conftest import unused_port

PROGRAM = shutil.which("redis-server")


class RedisServer:
    """A Redis that can be killed, stopped, and started again on its port.

    Args:
        folder: for its log and its socket.
        password: that it asks for.
        options: more of its settings.
    """

    def __init__(self, folder: Path, password: str = "", *options: str) -> None:
        self.folder, self.password, self.options = folder, password, options
        self.port = unused_port()
        self.socket = folder / "redis.sock"
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen | None = None

    def start(self) -> RedisServer:
        settings = [
            *("bind 127.0.0.1", f"port {self.port}", f"unixsocket {self.socket}", 'save ""'),
            *(f"dir {self.folder}", *self.options),
            *([f"requirepass {self.password}"] if self.password else []),
        ]
        (self.folder / "redis.conf").write_text("\n".join(settings) + "\n")
        with (self.folder / "redis.log").open("a") as log:
            self.process = subprocess.Popen(
                [str(PROGRAM), str(self.folder / "redis.conf")], stdout=log, stderr=log
            )

        def answers() -> bool:
            with suppress(OSError):
                return self.ask("PING") == b"+PONG"
            return False

        until(answers, "redis-server answers")
        return self

    def ask(self, *parts: str | bytes) -> Any:
        """One command on a connection of its own; what is said, or the value."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            file = connection.makefile("rb")
            if self.password:
                connection.sendall(packed("AUTH", self.password))
                read_reply(file)
            connection.sendall(packed(*parts))
            return read_reply(file)

    def stored(self) -> list[bytes]:
        return self.ask("KEYS", "*")

    def send(self, number: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(number)

    def kill(self) -> None:
        """As the machine would that has no memory left; all values are gone."""
        assert self.process
        self.process.kill()
        self.process.wait(PATIENCE)


def packed(*parts: str | bytes) -> bytes:
    found = b"*%d\r\n" % len(parts)
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        found += b"$%d\r\n%b\r\n" % (len(content), content)
    return found


def read_reply(file: BinaryIO) -> Any:
    line = file.readline().rstrip(b"\r\n")
    if line.startswith(b"$"):
        size = int(line[1:])
        return None if size < 0 else file.read(size + 2)[:-2]
    if line.startswith(b"*"):
        return [read_reply(file) for _ in range(int(line[1:]))]
    return line
