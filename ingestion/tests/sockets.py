"""Servers of tests that speak to a socket themselves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

ENDS_WITHIN = 10  # seconds


@contextmanager
def accepting(listening: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Hand each connection to ``serve``, in a thread of its own, until the block ends.

    Nobody waits for a connection after that: a thread that did would take those of the next socket
    that gets the number of this one.
    """
    ended = threading.Event()

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                if ended.is_set():
                    connection.close()
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        with suppress(OSError):  # the last connection: it is woken by it
            socket.create_connection(listening.getsockname(), ENDS_WITHIN).close()
        thread.join(ENDS_WITHIN)
        assert not thread.is_alive()
