"""Makes up transactions: JSON Lines with late, repeated, changed, broken and rule-breaking rows.

The same arguments give the same lines on every machine: all randomness is raw 64-bit words of
NumPy's PCG64 (bit streams are what NumPy promises to keep, unlike distributions), and all that
follows is arithmetic with whole numbers. Of a gzipped file, that holds for the lines.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import IO, cast

from ingestion import interrupts
from ingestion.errors import UserError, error_line
from ingestion.places import on_disk
from ingestion.progress import task
from ingestion.sample.plan import SPAN, Plan, Shares

LINES_AT_A_TIME = 200_000
DEVICES = (("/", "dev"), ("/", "proc"))


def generate(
    rows: int,
    seed: int,
    out: Path | str,
    *,
    start: date = SPAN[0],
    end: date = SPAN[1],
    shares: Shares | None = None,
    counts: Path | str | None = None,
) -> dict[str, int]:
    """Write ``rows`` lines of transactions to ``out``, whole or not at all.

    Args:
        rows: lines of the file, broken ones included.
        seed: any whole number from 0; the same seed gives the same lines.
        out: the file, JSON Lines; gzipped when the name ends with ``.gz``.
        start: first day of events, UTC.
        end: last day of events, UTC.
        shares: how many lines are late, repeated, changed, broken; the defaults of ``Shares``.
        counts: where to write the counts as well, as JSON.

    Returns:
        Exact counts: ``lines`` = ``landed`` + ``rejected``; ``transactions`` (distinct ids of
        rows that land and break no rule); ``late`` (behind a row of a later event; repeats and
        far-future rows do not count); ``repeated``; ``pending_to_approved``,
        ``approved_to_refunded``; ``reject.<reason code>``; ``rule.<rule broken>``;
        ``status.<status>`` of rows that land.

    Raises:
        UserError: the numbers make no sense together, or ``out`` cannot be written.
    """
    shares = shares or Shares()
    _check(rows, seed, start, end, shares)
    out = on_disk(out, "What is made up")
    plan = Plan(rows, seed, start, end, shares)
    with task(f"Generating {out.name}", total=rows, unit="lines") as advance, _whole(out) as file:
        for first in range(0, rows, LINES_AT_A_TIME):
            text = plan.lines(first, min(first + LINES_AT_A_TIME, rows))
            file.write(text)
            advance(min(LINES_AT_A_TIME, rows - first))
    if counts:
        Path(counts).write_text(json.dumps(plan.counts, indent=2) + "\n")
    return plan.counts


def _check(rows: int, seed: int, start: date, end: date, shares: Shares) -> None:
    if rows < 1 or seed < 0:
        raise UserError("rows must be 1 or more, and seed 0 or more.\nTry --rows 100000 --seed 1.")
    if end < start:
        raise UserError(f"The last day, {end}, is before the first, {start}.\nSwap the two.")
    lines = shares.broken + 2 * (shares.repeated + shares.settled + shares.refunded)
    if min(asdict(shares).values()) < 0 or lines + shares.rule_breaking + shares.late > 1:
        raise UserError(
            "The shares do not fit: none may be negative, and with repeats and status changes"
            " counted twice they must not be more than 1 together.\nAsk for less of them."
        )


@contextmanager
def _whole(out: Path) -> Iterator[IO[bytes]]:
    """A binary file that takes its name only when it is complete.

    What is there and is no file (``/dev/stdout``, a pipe) is written to as it is.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if (out.exists() and not out.is_file()) or out.parts[:2] in DEVICES:
            with out.open("wb") as plain:
                yield plain
        else:
            with _until_whole(out.resolve()) as file:
                yield file
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise UserError(
            f"{out} cannot be written: {error.strerror or error_line(error)}.\nGive another file."
        ) from error


@contextmanager
def _until_whole(out: Path) -> Iterator[IO[bytes]]:
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    try:
        with interrupts.giving_back(part.unlink), part.open("wb") as plain:
            if out.name.endswith(".gz"):
                with gzip.GzipFile("", "wb", 6, plain, mtime=0) as packed:
                    yield cast("IO[bytes]", packed)
            else:
                yield plain
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
