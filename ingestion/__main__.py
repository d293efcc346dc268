"""The ``marquee`` command, also by ``python -m ingestion``."""

import os
import signal

from ingestion import COMMAND, INTERRUPTED

STACK = 64 * 1024**2  # bytes, as much as a main thread may have


def main() -> None:
    """Entry point. What takes time to import comes after signals are seen to.

    The command has a thread of its own: in the main one, libraries would take Ctrl-C for themselves
    (ADBC cancels the query and goes on, Arrow and dlt do alike), and `interrupts` not hear of it.
    """
    heard = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]
    for number in heard:
        signal.signal(number, _end)
    import threading

    raised: list[BaseException] = []
    usual = threading.stack_size(STACK)
    thread = threading.Thread(target=_command, args=(raised,), name=COMMAND, daemon=True)
    thread.start()
    threading.stack_size(usual)
    from ingestion import interrupts

    interrupts.watch()
    thread.join()
    for number in heard:
        signal.signal(number, _end)
    if raised:
        raise raised[0]


def _command(raised: list[BaseException]) -> None:
    try:
        from ingestion.cli import main as command

        command()
    except BaseException as error:
        raised.append(error)


def _end(number: int, _: object) -> None:
    """While there is nothing to give back."""
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    main()
