"""``marquee rejects``: lines that could not land, and rows that break a rule; see, correct them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from ingestion import interrupts, marked
from ingestion.cli.options import (
    loader_target,
    print_notes,
    refuse_without_warehouse,
    target_option,
)
from ingestion.errors import UserError
from ingestion.evidence.recorder import recorded
from ingestion.places import on_disk
from ingestion.rejects import SOURCES, counts, open_rejects
from ingestion.terminal import echo, one_line
from ingestion.warehouse.target import Target

reason_option = click.option("--reason", metavar="CODE", help="Only rejects with this reason code.")


@click.group(invoke_without_command=True)
@target_option
@click.pass_context
def rejects(context: click.Context, target_name: str | None) -> None:
    """List, show and correct the lines that could not land, and list the rows that dbt has marked.

    Without a command, print how many open rejects each reason has. A reject is open until you have
    corrected it (export, edit, replay), or until another version of its file has landed. A marked
    row has landed, but breaks a rule: correct it by a seed, a variable or a corrected file, then
    dbt build.
    """
    if context.invoked_subcommand:
        return
    found, broken = counts(_target(target_name)), marked.by_reason(_reader(target_name))
    if found:
        head = ("source", "reason", "rejects", "latest file", "e.g. line")
        rows = [(*row[:2], f"{row[2]:,}", one_line(row[3]), f"{row[4]:,}") for row in found]
        _print_table([head, *rows], right=(2, 4))
    else:
        echo("There are no open rejects.")
    if broken:
        echo("\nMarked by dbt: these rows have landed, but break a rule, so they are in no fact.")
        heads = ("reason", "rows", "share", "latest file", "e.g. line", "values")
        _print_table(
            [
                heads,
                *(
                    (
                        *(rule.reason_code, f"{rule.rows:,}", rule.share, one_line(rule.file)),
                        *(f"{rule.line:,}", one_line(rule.examples, None)),
                    )
                    for rule in broken
                ),
            ],
            right=(1, 2, 4),
        )
        for rule in broken:
            echo(f"{rule.reason_code}: {marked.remedy(rule.reason_code)}")


def _print_table(rows: list[Sequence[str]], right: tuple[int, ...]) -> None:
    """Print rows of cells below each other, the columns ``right`` flush right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        echo("  ".join(cells).rstrip())


@rejects.command()
@click.option("--source", type=click.Choice(SOURCES), help="Only rejects of this source.")
@reason_option
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@target_option
def show(source: str | None, reason: str | None, limit: int, target_name: str | None) -> None:
    """Print each reject: file and line, reason, text. Then each marked row, with what it holds."""
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
    for row in _marked_rows(source, reason, limit - shown + 1, target_name):
        if shown == limit:
            echo(f"There are more: --limit {limit * 10}")
            return
        echo(f"{one_line(row.file)}:{row.line}  marked {row.reason_code}: {_value(row)}")
        worth = f"{row.amount} {row.currency_code or ''}".rstrip()
        echo(f"    {one_line(row.transaction_id)}, {row.event_at or 'no time'}, {one_line(worth)}")
        shown += 1
    if not shown:
        echo(_none(reason))


@rejects.command()
@click.argument("name", metavar="FILE")
@reason_option
@click.option("--marked", "is_marked", is_flag=True, help="The marked rows instead, as CSV.")
@target_option
def export(name: str, reason: str | None, is_marked: bool, target_name: str | None) -> None:
    """Write rejected transactions to FILE, one per line, so that you can correct them there.

    Each line is the reject's reference, a tab, and its text as it came. With --marked, FILE is a
    list of the rows that dbt has marked, to look at: these are not replayed, but corrected by a
    seed, a variable or a corrected file.
    """
    if is_marked:
        _export_marked(on_disk(name, "The list"), reason, target_name)
        return
    from ingestion.sources.transactions.landing import replay

    file = on_disk(name, "The file to correct")
    count = replay.export(open_rejects(_target(target_name), "transactions", reason), file)
    if not count:
        raise UserError(f"{_none(reason)}\nNothing is written. For rows that are marked: --marked")
    echo(f"{count:,} rejects are in {file}.\nCorrect them, then: marquee rejects replay {file}")


@rejects.command("replay")
@click.argument("name", metavar="[FILE]", required=False)
@target_option
@recorded("rejects replay")
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


def _export_marked(file: Path, reason: str | None, target_name: str | None) -> None:
    """Write the marked rows as CSV.

    Raises:
        UserError: there is none, or the file cannot be written.
    """
    count = 0
    try:
        with (
            file.open("x", encoding="utf-8", newline="") as out,
            interrupts.giving_back(file.unlink),
        ):
            writer = csv.writer(out)
            writer.writerow(marked.MarkedRow.__annotations__)
            for row in marked.rows(_reader(target_name), reason):
                writer.writerow(vars(row).values())
                count += 1
    except FileExistsError as error:
        raise UserError(f"{file} is there already.\nGive another name.") from error
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}.\nCheck it.") from error
    if not count:
        file.unlink()
        raise UserError("No row is marked.\nNothing is written.")
    echo(f"{count:,} marked rows are in {file}. What to do about each reason: marquee rejects")


def _marked_rows(
    source: str | None, reason: str | None, limit: int, target_name: str | None
) -> Iterator[marked.MarkedRow]:
    if source in (None, "transactions"):
        yield from marked.rows(_reader(target_name), reason, limit)


def _value(row: marked.MarkedRow) -> str:
    return one_line(row.broken_value) if row.broken_value else "no value"


def _reader(name: str | None) -> Target:
    """The target as dbt logs in to it: marts are not the loader's to read."""
    from ingestion.warehouse import access

    refuse_without_warehouse()
    return access.ready(name)


def _target(name: str | None) -> Target:
    """The target; its server is started if it is the embedded one, but not made.

    Raises:
        UserError: there is no warehouse.
    """
    refuse_without_warehouse()
    return loader_target(name)


def _none(reason: str | None) -> str:
    return f"There are no open rejects{f' with the reason {reason}' if reason else ''}."
