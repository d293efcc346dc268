"""``marquee doctor``: what is wrong here, if anything."""

from __future__ import annotations

import click

from ingestion.cli.options import target_option
from ingestion.doctor import checks
from ingestion.terminal import echo
from ingestion.warehouse.access import load_target


@click.command()
@target_option
def doctor(target_name: str | None) -> None:
    """Check that everything Marquee needs is there; exit code 1 if something is not."""
    found = checks(lambda: load_target(target_name))
    width = max(len(check.name) for check in found)
    for check in found:
        word, colour = {True: ("ok", "green"), None: ("warn", "yellow"), False: ("FAIL", "red")}[
            check.ok
        ]
        echo(f"{word:<4}", nl=False, fg=colour)
        echo(f"  {check.name:<{width}}  {check.detail}")
        if check.remedy:
            echo(f"{'':<{width + 8}}{check.remedy}")
    if any(check.ok is False for check in found):
        raise SystemExit(1)
