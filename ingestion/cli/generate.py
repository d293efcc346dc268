"""``marquee generate`` makes data to try."""

from __future__ import annotations

from datetime import datetime, timezone

import click

from ingestion.terminal import echo

ROWS, SEED = 100_000, 42  # of a made-up file


@click.group()
def generate() -> None:
    """Generate sample data."""


@generate.command("transactions")
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    help="Lines; 100,000 unless given, with --rate no end unless given.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    help="The same seed gives the same lines; 42 unless given, with --rate a new one.",
)
@click.option("--out", metavar="FILE", help="JSONL file to write as a whole, on this disk.")
@click.option(
    "--to",
    metavar="FILE|-|kafka://HOST[:PORT]/TOPIC",
    help="Where to send lines: a file that grows, standard output, or a topic.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True, max=1_000_000),
    help="Lines a second, whose events happen as they are sent. Ctrl-C ends it.",
)
@click.option(
    "--start",
    type=click.DateTime(),
    help="With --rate, event time of the first line, UTC; now unless given.",
)
def generate_transactions(
    rows: int | None,
    seed: int | None,
    out: str | None,
    to: str | None,
    *,
    rate: float | None,
    start: datetime | None,
) -> None:
    """Make up card transactions as JSONL: some are late, repeated, changed or broken.

    --out writes a file, whole or not at all. --to sends lines, at a --rate or as fast as they are
    taken. Settings of Kafka are in [sources.transactions.kafka] of dlt's files, see
    docs/streams.md.
    """
    if (out is None) == (to is None):
        raise click.UsageError("Give --out FILE for a file, or --to for a stream.")
    if out is not None:
        if rate or start:
            raise click.UsageError("--rate and --start go with --to.")
        from ingestion.sample import transactions

        rows, seed = rows or ROWS, SEED if seed is None else seed
        for kind, count in transactions.generate(rows, seed, out).items():
            echo(f"{kind:<28} {count:>12,}")
        return
    if start and not rate:
        raise click.UsageError("--start goes with --rate.")
    from ingestion.sample.send import send

    if rate is None:
        rows, seed = rows or ROWS, SEED if seed is None else seed
    start = start and start.replace(tzinfo=timezone.utc)
    send(str(to), rows, seed, rate=rate, start=start)
