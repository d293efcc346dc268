"""Ctrl-C and ``kill``: a command ends within seconds, with one line, and leaves nothing running.

Python tells a program of a signal only between two of its own steps: a query that waits for a lock
is none, and libraries catch what is raised there, or wait for their threads first. So nothing is
raised. A thread hears of the signal at once, gives back what must not stay (a half-written file,
queries in the server, programs that were started), and ends the process, wherever the others are.
For the warehouse that is ``kill -9``, after which every command goes on where the last one stopped.

Before this module is loaded, and once a command has ended, ``__main__.py`` sees to signals.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

from ingestion import COMMAND, INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TIMEOUT_SECONDS = 5.0  # seconds for giving back; then the process ends all the same
ECHO = 0.3  # seconds in which the same signal may come twice: from a terminal, and from make

_given_back: list[Callable[[], object]] = []
_at_once: list[Callable[[], object]] = []
_said: list[str] = [INTERRUPTED]
_terminal: list[Any] = []
_heard = threading.Event()


def watch() -> None:
    """From now on signals end this process as said above.

    A signal that the caller has ignored (``nohup``, and Ctrl-C behind ``&``) stays ignored.
    """
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    if not heard or any(signal.getsignal(number) is _wait for number in heard):
        return
    with suppress(Exception):  # a prompt that is broken off leaves a terminal without echo
        import termios

        _terminal.append(termios.tcgetattr(0))
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(reading,), name="interrupts", daemon=True).start()
    for number in heard:
        signal.signal(number, _wait)


@contextmanager
def giving_back(
    give_back: Callable[[], object],
    at_once: Callable[[], object] = int,
    said: str | None = None,
) -> Iterator[None]:
    """What an interrupt within the block calls, and not where the block ends in any other way.

    Args:
        give_back: called in another thread, while this one goes on.
        at_once: called in its place after a second interrupt; it must not wait.
        said: the one line, where the usual one is not true.
    """
    _given_back.append(give_back)
    _at_once.append(at_once)
    _said.append(said or _said[-1])
    try:
        yield
    finally:
        await_end()
        _given_back.remove(give_back)
        _at_once.remove(at_once)
        _said.pop()


def await_end() -> None:
    """After an interrupt the command's thread goes no further: the process ends from another one.

    Its query was cancelled, so it may be on the way to say that the command has failed.
    """
    while _heard.is_set() and threading.current_thread().name == COMMAND:
        time.sleep(1)


def _wait(number: int, _: FrameType | None) -> None:
    """Python's handler, in the main thread: it must not end the process before the other one."""
    time.sleep(TIMEOUT_SECONDS + 1)
    os._exit(128 + number)  # only where that thread is gone: Python is being shut down


def _listen(reading: int) -> None:
    """End the process at the first signal; at the second, or when that takes long, at once."""
    number = _next(reading)
    _heard.set()
    threading.Thread(target=_end, args=(number,), daemon=True).start()
    time.sleep(ECHO)
    while select.select([reading], [], [], 0)[0]:
        os.read(reading, 1024)
    select.select([reading], [], [], TIMEOUT_SECONDS - ECHO)
    last = threading.Thread(target=_do, args=((partial(end_programs, 0), *_at_once),), daemon=True)
    last.start()
    last.join(ECHO)
    os._exit(128 + number)


def _next(reading: int) -> int:
    while True:
        for number in os.read(reading, 1):
            if number in SIGNALS:
                return number


def _end(number: int) -> None:
    _do((_say, _end_queries, *reversed(_given_back), end_programs, _end_queries))
    # the command goes on meanwhile, and may have made only now what it had registered
    time.sleep(0.05)
    _do(reversed(_given_back))
    os._exit(128 + number)


def _do(steps: Iterable[Callable[[], object]]) -> None:
    for step in steps:
        with suppress(Exception):
            step()


def _say() -> None:
    """The one line; nothing that other threads print from now on is seen."""
    line = _said[-1].encode() + b"\n"
    if os.isatty(2):
        line = b"\r\x1b[2K\x1b[?25h" + line  # over a progress bar, which hides the cursor
    if _terminal:
        import termios

        termios.tcsetattr(0, termios.TCSANOW, _terminal[0])
    with suppress(OSError):
        os.write(2, line)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _end_queries() -> None:
    """Cancel what servers do for this process: they notice only late that a client is gone."""
    psycopg2 = sys.modules.get("psycopg2.extensions")
    adbc = sys.modules.get("adbc_driver_manager.dbapi")
    for thing in gc.get_objects():
        kind = type(thing)
        with suppress(Exception):
            if psycopg2 and issubclass(kind, psycopg2.connection) and not thing.closed:
                thing.cancel()
                # and no other query after it
                socket.socket(fileno=os.dup(thing.fileno())).shutdown(socket.SHUT_RDWR)
            elif adbc and issubclass(kind, adbc.Connection | adbc.Cursor):
                thing.adbc_cancel()


def end_programs(patience: float = 1.0) -> None:
    """End what was started here and is still in this session; a server is in one of its own."""
    started = getattr(sys.modules.get("subprocess"), "Popen", None)
    if not started or not any(
        issubclass(type(thing), started) and thing.returncode is None for thing in gc.get_objects()
    ):
        return
    # no import without need: the main thread may stand still in the middle of one
    import psutil

    left = []
    for child in psutil.Process().children(recursive=True):
        with suppress(OSError, psutil.Error):
            if os.getsid(child.pid) == os.getsid(0) and not _tidies(child.pid):
                left.append(child)
                if patience:
                    child.terminate()
    if patience:
        _, left = psutil.wait_procs(left, timeout=patience)
    for child in left:
        with suppress(psutil.Error):
            child.kill()


def _tidies(pid: int) -> bool:
    """Whether it is the helper of Python's multiprocessing, which ends by itself after this one."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    return pid == getattr(getattr(tracker, "_resource_tracker", None), "_pid", None)
