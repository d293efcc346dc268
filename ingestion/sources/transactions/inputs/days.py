"""Paths with a day in them, such as ``s3://bucket/dt=%Y-%m-%d/*.jsonl``: the files of some days."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date

from ingestion.databases.connecting import place_of
from ingestion.days import Days
from ingestion.errors import UserError
from ingestion.sources.transactions.inputs.database import is_database
from ingestion.sources.transactions.inputs.files import Found, NoFileError, find_files

_DIRECTIVES = re.compile(r"%(.?)")
_DAYS = "YmdyjGVu"  # of strftime, those that a day has and that are numbers


def files_of_days(paths: Sequence[str], days: Days) -> Found:
    """The files of some days.

    Args:
        paths: as ``find_files`` takes them, each with a day in it as strftime writes it; ``%%`` is
            a per cent sign.
        days: which.

    Returns:
        The files; days without one are in its notes.

    Raises:
        UserError: a path has no day, or not one that can be written.
    """
    for path in paths:
        _refuse_without_day(path)
    written = {_write(path, day): day for path in paths for day in days}
    found: list[Found] = []
    notes: list[str] = []
    for path in written:  # a path of a month is there once
        try:
            found.append(find_files([path]))
        except NoFileError:
            notes.append(f"There is no file {path}; nothing to land of it.")
    files = {file.place: file for some in found for file in some}
    return Found(files.values(), [note for some in found for note in some.notes] + notes)


def _refuse_without_day(path: str) -> None:
    """
    Raises:
        UserError: nothing in the path says a day, or something that no day has; or it is a table.
    """
    if is_database(path):  # said without the URL: there may be a password in it
        raise UserError(
            "--since and --until are for files, and this is a table.\n"
            "Leave them out; with &cursor=COLUMN in the URL, only what is new is read."
        )
    shown = place_of(path) if "://" in path else path
    found = [letter for letter in _DIRECTIVES.findall(path) if letter != "%"]
    if not found:
        raise UserError(
            f"--since and --until are for paths with a day in them, and {shown} has none.\n"
            "Write the day as in s3://bucket/dt=%Y-%m-%d/*.jsonl, or leave these options out."
        )
    for letter in found:
        if not letter or letter not in _DAYS:
            raise UserError(
                f"%{letter} in {shown} is no part of a day.\n"
                f"There are: {', '.join(f'%{each}' for each in _DAYS)}; %% is a per cent sign."
            )


def _write(path: str, day: date) -> str:
    def written(found: re.Match[str]) -> str:
        return "%" if found[1] == "%" else day.strftime(found[0])

    return _DIRECTIVES.sub(written, path)
