"""``marquee ingest watch`` lands what comes into a folder or a bucket."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import click

from ingestion.cli.options import destination, target_option, to_option
from ingestion.evidence.recorder import current, recorded
from ingestion.terminal import echo

if TYPE_CHECKING:
    from ingestion.pipeline import LoadReport
    from ingestion.sources.transactions.inputs.files import Found

STOPPED = "Stopped. What has landed stays; the next watch goes on from there."


@click.command("watch")
@click.argument("path")
@click.option("--once", is_flag=True, help="Land what is there, tell, and end: for a scheduler.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="From look to look.",
)
@click.option(
    "--settle",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="A file on disk lands once its size and time have not changed for so long.",
)
@click.option("--then", metavar="COMMAND", help="Call it in a shell whenever files have landed.")
@click.option(
    "--webhook",
    metavar="URL",
    envvar="MARQUEE_WEBHOOK",
    help="POST to it what has landed and what was refused, as JSON. Also: $MARQUEE_WEBHOOK.",
)
@click.option(
    "--replace", is_flag=True, help="A file that has changed lands again, in place of its old rows."
)
@click.option("--mapping", "mapping_name", metavar="FILE|NAME", help="As of ingest transactions.")
@to_option
@target_option
@recorded("ingest watch")
def watch(
    path: str,
    target_name: str | None,
    *,
    once: bool,
    every: float,
    settle: float,
    then: str | None,
    webhook: str | None,
    replace: bool,
    mapping_name: str | None,
    to: str,
) -> None:
    """Land files of transactions as they come into PATH, each once.

    PATH is a folder, a glob, or a prefix at s3://, gs://, az:// or hdfs:// with / at its end. A
    file that cannot land is refused with the reason, and tried again only when it has changed. Ends
    with Ctrl-C or SIGTERM; a load that is under way then leaves nothing, and the next watch lands
    it.
    """
    from ingestion import interrupts
    from ingestion.sources import transactions
    from ingestion.sources.transactions.mapping.choose import find_mapping
    from ingestion.watch.folder import Watch, watchable
    from ingestion.watch.memory import Memory
    from ingestion.watch.telling import tellers

    # all of this before a server is started for nothing
    watchable(path)
    told = tellers(then, webhook)
    mapping = find_mapping(mapping_name) if mapping_name else None
    target, into = destination(to, target_name)
    stop, ended = threading.Event(), threading.Event()

    def land(found: Found) -> LoadReport:
        return transactions.ingest(
            found, target, replace=replace, mapping=mapping, destination=into
        )

    def end() -> None:
        stop.set()
        ended.wait(4)

    if not once and (evidence := current()):
        evidence.flush_often()
    otherwise = ("replace" * replace, mapping.checksum if mapping else "", to)
    memory = Memory.of(target, path, *otherwise)
    watching = Watch(path, land, memory, tellers=told, settle=settle, say=echo)
    with interrupts.giving_back(end, said=STOPPED):
        try:
            if once:
                watching.once(stop)
            else:
                watching.follow(every, stop)
        finally:
            ended.set()
