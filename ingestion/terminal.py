"""What reaches a terminal: text of others, made safe to look at."""

from __future__ import annotations

from typing import Any

import click

SHORT = 160  # characters of a text that one line shows


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


def echo(message: object = "", *, err: bool = False, nl: bool = True, **styles: Any) -> None:
    """Print a line, safely: the way for all that this program prints.

    Args:
        message: the line, or lines.
        err: on standard error.
        nl: end it.
        styles: of the whole of it, as ``click.style`` takes them; left out where the output is no
            terminal.
    """
    text = printable(message)
    click.echo(click.style(text, **styles) if styles else text, err=err, nl=nl)
