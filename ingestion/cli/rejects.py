"""``marquee rejects``: lines that could not land; see them, correct them, land them after all."""

from __future__ import annotations

import click

from ingestion.cli.options import (
    loader_target,
    print_notes,
    refuse_without_warehouse,
    target_option,
)
from ingestion.errors import UserError
from ingestion.places import on_disk
from ingestion.rejects import SOURCES, counts, open_rejects
from ingestion.terminal import echo, one_line
from ingestion.warehouse.target import Target

reason_option = click.option("--reason", metavar="CODE", help="Only rejects with this reason code.")


@click.group(invoke_without_command=True)
@target_option
@click.pass_context
def rejects(context: click.Context, target_name: str | None) -> None:
    """List, show and correct the lines that could not land.

    Without a command, print how many open rejects each reason has. A reject is open until you have
    corrected it (export, edit, replay), or until another version of its file has landed.
    """
    if context.invoked_subcommand:
        return
    found = counts(_target(target_name))
    if not found:
        echo("There are no open rejects.")
        return
    head = ("source", "reason", "rejects", "latest file", "e.g. line")
    rows = [(*row[:2], f"{row[2]:,}", one_line(row[3]), f"{row[4]:,}") for row in found]
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if at in (2, 4) else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        echo("  ".join(cells))


@rejects.command()
@click.option("--source", type=click.Choice(SOURCES), help="Only rejects of this source.")
@reason_option
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@target_option
def show(source: str | None, reason: str | None, limit: int, target_name: str | None) -> None:
    """Print each reject: file and line, reason, text."""
    target = _target(target_name)
    shown = 0
    for name in [source] if source else SOURCES:
        for reject in open_rejects(target, name, reason, limit - shown + 1):
            if shown == limit:
                echo(f"There are more: --limit {limit * 10}")
                return
            why = one_line(reject.reason, None)
            echo(f"{one_line(reject.file)}:{reject.line}  {reject.reason_code}: {why}")
            echo(f"    {one_line(reject.raw_text)}")
            shown += 1
    if not shown:
        echo(_none(reason))


@rejects.command()
@click.argument("name", metavar="FILE")
@reason_option
@target_option
def export(name: str, reason: str | None, target_name: str | None) -> None:
    """Write rejected transactions to FILE, one per line, so that you can correct them there.

    Each line is the reject's reference, a tab, and its text as it came.
    """
    from ingestion.sources.transactions.landing import replay

    file = on_disk(name, "The file to correct")
    count = replay.export(open_rejects(_target(target_name), "transactions", reason), file)
    if not count:
        raise UserError(f"{_none(reason)}\nNothing is written.")
    echo(f"{count:,} rejects are in {file}.\nCorrect them, then: marquee rejects replay {file}")


@rejects.command("replay")
@click.argument("name", metavar="[FILE]", required=False)
@target_option
def replay_command(name: str | None, target_name: str | None) -> None:
    """Land the rejected transactions that you corrected in FILE.

    FILE is what `export` wrote, edited. Each row lands under the file and line that it came from. A
    row that is still wrong is listed and stays a reject. Without FILE, all open rejects are read
    again unchanged: useful after the rules have changed.
    """
    from ingestion.sources.transactions.landing import replay

    texts = replay.corrected(on_disk(name, "The corrected file")) if name else None
    report = replay.replay(texts, _target(target_name))
    print_notes(report)
    echo(f"{report.rows['transactions']:,} rows have landed, in {report.seconds:.1f} s.")


def _target(name: str | None) -> Target:
    """The target; its server is started if it is the embedded one, but not made.

    Raises:
        UserError: there is no warehouse.
    """
    refuse_without_warehouse()
    return loader_target(name)


def _none(reason: str | None) -> str:
    return f"There are no open rejects{f' with the reason {reason}' if reason else ''}."
