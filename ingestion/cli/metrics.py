"""``marquee metrics``: the runs and the warehouse in figures, for Prometheus."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click

from ingestion import interrupts
from ingestion.cli.options import refuse_without_warehouse, target_option
from ingestion.errors import UserError, is_passing
from ingestion.places import on_disk
from ingestion.terminal import document


@click.command()
@click.option("--output", metavar="FILE", help="Write them to FILE, all or nothing.")
@target_option
def metrics(output: str | None, target_name: str | None) -> None:
    """Print metrics of the runs in Prometheus' text format.

    --output is for the textfile collector of node-exporter, whose folder takes files that end in
    .prom. Where the warehouse does not answer, marquee_up is 0 and the exit code 75.
    """
    from ingestion.evidence.metrics import text, text_of_none
    from ingestion.warehouse import access

    path = on_disk(output, "The file of metrics") if output else None
    refuse_without_warehouse()
    target = access.load_target(target_name)  # a server that is stopped is not started
    try:
        _put(text(target), path)
    except UserError as error:
        if is_passing(error):
            _put(text_of_none(), path)
        raise


def _put(found: str, path: Path | None) -> None:
    if path is None:
        document(found.rstrip("\n"))
    else:
        _write(path, found)


def _write(path: Path, text: str) -> None:
    """Write a file that others read at any moment, and that they may read.

    Raises:
        UserError: it cannot be written.
    """
    copy = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with interrupts.giving_back(copy.unlink):
            copy.write_text(text, encoding="utf-8")
            copy.chmod(0o644)
            copy.replace(path)
    except OSError as error:
        with suppress(OSError):
            copy.unlink()
        raise UserError(
            f"{path} cannot be written: {error.strerror}.\nCheck the folder, or give another one."
        ) from error
