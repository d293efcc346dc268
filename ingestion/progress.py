"""How long work shows itself: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ingestion.terminal import echo, lines_are_json, printable

PLAIN_EVERY = 10.0  # seconds between lines where there is no terminal


@contextmanager
def task(label: str, total: float | None = None, unit: str = "rows") -> Iterator[Callable]:
    """Show one piece of work.

    Yields ``advance(n=1, total=None, unit=None)``: ``n`` more units are done; ``total`` is a better
    one, ``unit`` a better word. On a terminal a bar with an estimate is drawn on standard
    error; elsewhere a line is printed every ten seconds. Nothing is left on the screen by work that
    ends before that: the caller reports it.
    """
    if not sys.stderr.isatty() or lines_are_json():
        yield _plain(label, total, unit)
        return

    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(escape(printable(label)), total=total, unit=unit)

        def advance(n: float = 1, total: float | None = None, unit: str | None = None) -> None:
            better: dict[str, Any] = {"unit": unit} if unit else {}
            better |= {"total": total} if total else {}
            progress.update(bar, advance=n, **better)

        yield advance


def _plain(label: str, total: float | None, unit: str) -> Callable:
    state: dict[str, Any] = {"done": 0.0, "total": total, "unit": unit}
    state["next"] = time.monotonic() + PLAIN_EVERY

    def advance(n: float = 1, total: float | None = None, unit: str | None = None) -> None:
        state["done"] += n
        state["total"] = total or state["total"]
        state["unit"] = unit or state["unit"]
        if time.monotonic() >= state["next"]:
            state["next"] = time.monotonic() + PLAIN_EVERY
            of = f" of {state['total']:,.0f}" if state["total"] else ""
            facts = {key: state[key] for key in ("done", "total", "unit")}
            said = f"  {label}: {state['done']:,.0f}{of} {state['unit']}"
            echo(said, err=True, level="info", event="progress", facts=facts | {"task": label})

    return advance
