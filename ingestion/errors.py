"""The one kind of error that a user is meant to see, and a remedy that several of them name."""

import importlib.util
import sys
import traceback
from pathlib import Path

import click

from ingestion.terminal import printable


class UserError(click.ClickException):
    """Something the user can correct: one or two lines that say what is wrong and what to do.

    Click prints it as ``Error: ...`` on standard error and exits with code 1, without a traceback.
    What it quotes of others is printed safely.
    """

    def format_message(self) -> str:
        return printable(self.message)


def error_line(error: BaseException) -> str:
    """What an error says of itself, in one line; where it says nothing, what it is and whence."""
    for line in str(error).splitlines():
        if line.strip():
            return line.strip()
    where = ""
    if frames := traceback.extract_tb(error.__traceback__):
        last = frames[-1]
        where = f", in {last.name} ({Path(last.filename).name}, line {last.lineno})"
    return f"{type(error).__name__} without a word{where}"


def install_command(extra: str) -> str:
    """What adds an extra of pyproject.toml to this environment, which has no pip if uv made it."""
    if importlib.util.find_spec("pip"):
        return f"{sys.executable} -m pip install -e '.[{extra}]'"
    return f"uv pip install --python {sys.executable} -e '.[{extra}]'"
