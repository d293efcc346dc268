"""``marquee`` and ``dbt`` as processes that begin with all modules imported.

Most of what a short command costs is imports, and the tests start hundreds. So one process imports
once, and each command is a fork of it, with its own environment, folder and output. What is to be
killed is started anew, as ever.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FrameType

PROGRAMS = ("dbt", "marquee")
IMPORTED = (
    *("dbt.cli.main", "dbt.adapters.postgres", "dbt.task.build", "dbt.task.docs.generate"),
    *("adbc_driver_postgresql.dbapi", "pandas", "pyarrow.csv", "pyarrow.dataset"),
    *("pyarrow.parquet", "psycopg2", "requests", "rich.progress", "sqlglot", "yaml"),
)
FIXED = ("PYTHON", "LANG", "LC_", "LD_", "OPENBLAS_", "TZ")  # what a process reads as it begins
LONGEST = 1 << 20  # bytes of a request
_servers: dict[int, _Server] = {}


def run(
    args: Sequence[str | Path], *, cwd: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as ``subprocess.run(…, capture_output=True, text=True)``.

    Args:
        args: path of the program and its arguments.
        cwd: its folder.
        env: its environment.
    """
    command = [str(arg) for arg in args]
    is_known = Path(command[0]).name in PROGRAMS and Path(command[0]).parent == _BIN
    if not is_known or _fixed(env) != _fixed(dict(os.environ)):
        return subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, check=False
        )
    if not (server := _servers.get(os.getpid())):
        server = _servers[os.getpid()] = _Server()
    return server.run(command, cwd, env)


_BIN = Path(sys.executable).parent


def _fixed(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(FIXED)}


class _Server:
    """The process that has imported all, seen from the tests."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for one in (self.ours, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LONGEST)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ingestion.tests.forks", str(theirs.fileno())],
            cwd=Path(__file__).parents[2],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        atexit.register(self.end)

    def run(
        self, command: list[str], cwd: Path, env: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        request = json.dumps([command, str(cwd), env]).encode()
        pipes = [os.pipe(), os.pipe()]
        with ThreadPoolExecutor(len(pipes)) as readers:
            said = [readers.submit(_read, reading) for reading, _ in pipes]
            try:
                socket.send_fds(self.ours, [request], [writing for _, writing in pipes])
            finally:
                for _, writing in pipes:
                    os.close(writing)
            try:
                answer = self.ours.recv(64)
            except BaseException:  # the test took too long: nobody waits for the command any more
                self.end()
                del _servers[os.getpid()]
                raise
        assert answer, "the process that starts programs has ended"
        return subprocess.CompletedProcess(command, int(answer), *(one.result() for one in said))

    def end(self) -> None:
        self.ours.close()
        self.process.terminate()
        self.process.wait()


def _read(pipe: int) -> str:
    with os.fdopen(pipe, encoding="utf-8") as file:
        return file.read()


def _serve(connection: socket.socket) -> list[str]:
    """Fork for each request; returns in the fork, with the command."""
    children: list[int] = []

    def end(*_: int | FrameType | None) -> None:
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        sys.exit()

    signal.signal(signal.SIGTERM, end)
    while True:
        request, files, _, _ = socket.recv_fds(connection, LONGEST, 2)
        if not request:
            end()
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            connection.close()
            command, cwd, env = json.loads(request)
            for number, file in enumerate(files, start=1):
                os.dup2(file, number)
                os.close(file)
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(env)
            return command
        children.append(child)
        for file in files:
            os.close(file)
        _, status = os.waitpid(child, 0)
        children.remove(child)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())


def _import_all() -> None:
    """Import what commands import, and let dbt make the classes that read and write manifests.

    Nothing that reads the environment as it is imported: Marquee's own modules, and dlt.
    """
    for name in IMPORTED:
        importlib.import_module(name)
    from dbt.contracts.graph.manifest import Manifest
    from dbt.flags import set_from_args

    set_from_args(Namespace(send_anonymous_usage_stats=False), None)
    manifest = Manifest()
    Manifest.from_msgpack(manifest.to_msgpack())
    manifest.writable_manifest().to_dict(omit_none=False)


def main() -> None:
    _import_all()
    command = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv = command
    module = sys.modules["__main__"]  # as it is where the program itself was started
    module.__package__, module.__spec__, module.__file__ = None, None, command[0]
    if Path(command[0]).name == "dbt":
        from dbt.cli.main import cli as program
    else:
        from ingestion.__main__ import main as program
    sys.exit(program())


if __name__ == "__main__":
    main()
