"""What reaches a terminal: text of others, made safe to look at; for programs, lines of JSON."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from typing import Any

import click

SHORT = 160  # characters of a text that one line shows
_json: list[bool] = []  # whether lines are JSON, once somebody has said so
_begun: list[str] = []  # the beginning of a line that has not ended


def printable(text: object) -> str:
    r"""The text with every character escaped that a terminal acts on, or that hides others.

    Line ends and tabs stay. All else that ``str.isprintable`` refuses (escape codes, a carriage
    return, a backspace, marks that turn the direction of writing, half surrogate pairs) stands as
    Python writes it, such as ``\x1b``.
    """
    found = str(text)
    if found.isprintable():
        return found
    return "".join(c if c in "\n\t" or c.isprintable() else repr(c)[1:-1] for c in found)


def one_line(text: object, most: int | None = SHORT) -> str:
    r"""A text of somebody else within a message of ours: printable, with line ends as ``\n``.

    Args:
        text: what they sent.
        most: only so many characters of it are shown, and its length is said; None shows all.
    """
    found = str(text)
    start = found if most is None else found[:most]
    safe = "".join(c if c.isprintable() else repr(c)[1:-1] for c in start)
    return safe if len(start) == len(found) else f"{safe}... ({len(found):,} characters)"


def lines_are_json(chosen: bool | None = None) -> bool:
    """Whether each line that is printed is an object of JSON; from now on, if ``chosen`` is given.

    Programs that are started from here do alike.
    """
    if chosen is not None:
        _json[:] = [chosen]
    return any(_json)


def echo(
    message: object = "",
    *,
    err: bool = False,
    nl: bool = True,
    level: str = "",
    event: str = "message",
    facts: dict[str, Any] | None = None,
    **styles: Any,
) -> None:
    """Print a line, safely: the way for all that this program says.

    Args:
        message: the line, or lines.
        err: on standard error.
        nl: end it.
        level: debug, info, warning or error, for lines of JSON; without it info, or warning on
            standard error.
        event: what has happened, in a word or two, for lines of JSON.
        facts: more of it, for lines of JSON.
        styles: of the whole of it, as ``click.style`` takes them; left out where the output is no
            terminal.
    """
    text = printable(message)
    if lines_are_json():
        _begun.append(text)
        if nl:
            said = "".join(_begun).strip()
            _begun.clear()
            log(said, level or ("warning" if err else "info"), event, facts, err=err)
        return
    click.echo(click.style(text, **styles) if styles else text, err=err, nl=nl)


def log(
    message: str,
    level: str,
    event: str,
    facts: dict[str, Any] | None = None,
    *,
    logger: str = "marquee",
    time: datetime | None = None,
    err: bool = False,
) -> None:
    """Print one line of JSON; nothing where there is nothing to say."""
    if not message and not facts:
        return
    moment = (time or datetime.now(timezone.utc)).astimezone(timezone.utc)
    line = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "event": event,
        "run_id": os.environ.get("MARQUEE_RUN_ID"),
        "logger": logger,
        "message": message,
    }
    click.echo(json.dumps(line | (facts or {}), default=str), err=err)


def document(text: str) -> None:
    """Print what a command was asked for, for the program that asked, as it is."""
    click.echo(text)
