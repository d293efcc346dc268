"""``marquee api``: the marts over HTTP, and for assistants."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ingestion.cli.options import refuse_without_warehouse, target_option
from ingestion.dbt_runner import target_path
from ingestion.errors import UserError, install_command
from ingestion.places import on_disk
from ingestion.terminal import echo, one_line
from ingestion.warehouse import access
from ingestion.warehouse.machine import HOST, port_taken
from ingestion.warehouse.paths import STATE_DIR
from serving.api.keys import RATE, Keys

if TYPE_CHECKING:
    from ingestion.warehouse.target import Target
    from serving.api.catalogue import Mart

PORT = 8000
NEEDED = (
    *("asyncpg", "fastapi", "fastapi_offline", "hiredis", "metricflow", "orjson"),
    *("prometheus_client", "uvicorn"),
)


manifest_option = click.option(
    "--manifest", metavar="FILE", help="dbt's manifest; without it, the last build's."
)
schema_option = click.option(
    "--schema", help="Schema of the marts, if you changed generate_schema_name."
)


@click.group()
def api() -> None:
    """Serve the marts over HTTP; make and revoke the keys of those who read."""


@api.command()
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(1, 65535))
@click.option("--host", default=HOST, show_default=True, help="0.0.0.0 in a container.")
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes."
)
@click.option(
    "--connections",
    default=4,
    show_default=True,
    type=click.IntRange(1, 100),
    help="To the warehouse, of each process; one more listens.",
)
@click.option(
    "--timeout",
    default=30,
    show_default=True,
    type=click.IntRange(1, 3600),
    help="Seconds that a query may take.",
)
@click.option(
    "--cache-mb",
    default=32,
    show_default=True,
    type=click.IntRange(0, 65536),
    help="Megabytes of answers that each process keeps.",
)
@click.option(
    "--cors-origin", "origins", multiple=True, help="A web page that may call it, as https://HOST."
)
@click.option(
    "--redis", metavar="URL", help="Share answers with other servers: redis://127.0.0.1:6379/0."
)
@click.option(
    "--redis-wait",
    default=10,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Milliseconds that a request waits for Redis.",
)
@manifest_option
@schema_option
@target_option
def serve(  # noqa: PLR0917 - click gives them by name
    port: int,
    host: str,
    workers: int,
    connections: int,
    timeout: int,
    cache_mb: int,
    origins: tuple[str, ...],
    redis: str | None,
    redis_wait: int,
    manifest: str | None,
    schema: str | None,
    target_name: str | None,
) -> None:
    """Serve the marts on 127.0.0.1, until stopped.

    Every request below /v1/ needs a key of `marquee api key create`. The warehouse is read as the
    reporter: on a server of your own, MARQUEE_REPORTER_PASSWORD says that role's password.
    That of Redis is in MARQUEE_REDIS_PASSWORD.
    """
    _refuse_without(NEEDED, "api")
    from serving.api.redis_link import Address
    from serving.api.service import serve as run
    from serving.api.settings import PASSWORD, Settings, reader

    target, path, marts = _what_is_served(target_name, manifest, schema)
    if redis:
        Address.of(redis)
    if port_taken(port):
        raise UserError(f"Port {port} is used by another program.\nChoose another one with --port.")
    if (login := reader(target)) == target:
        echo(
            f"The API reads as {login.user}. To have it read as the reporter, set {PASSWORD}.",
            err=True,
        )
    if not any(not key.revoked_at for key in Keys(STATE_DIR).all()):
        echo("There is no key yet. Make one: marquee api key create NAME", err=True)
    echo(f"{len(marts)} marts: http://{host}:{port}/docs\nCtrl-C stops it.")
    run(
        Settings(
            folder="",
            manifest=path,
            target_name=target_name,
            schema=schema,
            connections=connections,
            timeout=timeout,
            cache_bytes=cache_mb * 1024**2,
            origins=origins,
            redis=redis,
            redis_wait=redis_wait / 1000,
        ),
        host,
        port,
        workers,
    )


@api.command()
@click.option(
    "--timeout",
    default=30,
    show_default=True,
    type=click.IntRange(1, 3600),
    help="Seconds that a query may take.",
)
@manifest_option
@schema_option
@target_option
def mcp(timeout: int, manifest: str | None, schema: str | None, target_name: str | None) -> None:
    """Let an assistant read marts and metrics: an MCP server on standard input and output.

    The assistant's program starts it. It reads as the reporter, as `marquee api serve` does.
    """
    with redirect_stdout(sys.stderr):  # standard output is the assistant's
        _refuse_without((*NEEDED, "jsonschema", "mcp"), "api,mcp")
        from serving.api.mcp_server import run
        from serving.api.settings import Settings

        _, path, _ = _what_is_served(target_name, manifest, schema)
    run(
        Settings(
            folder="",
            manifest=path,
            target_name=target_name,
            schema=schema,
            connections=2,
            timeout=timeout,
        )
    )


def _refuse_without(packages: Iterable[str], extra: str) -> None:
    if missing := [name for name in packages if not find_spec(name)]:
        raise UserError(
            f"The API needs packages that are not here: {', '.join(missing)}.\n"
            f"Install them: {install_command(extra)}"
        )


def _what_is_served(
    target_name: str | None, manifest: str | None, schema: str | None
) -> tuple[Target, str, dict[str, Mart]]:
    """The target, which answers; the manifest's path; the marts."""
    from serving.api import catalogue

    refuse_without_warehouse()
    target = access.ready(target_name)
    path = on_disk(manifest, "The manifest") if manifest else target_path() / "manifest.json"
    marts = catalogue.read(path, target, schema)
    if not marts:
        raise UserError(f"{path} has no public model with an enforced contract.\nSee docs/api.md")
    return target, str(Path(path).absolute()), marts


@api.group()
def key() -> None:
    """Make, list and revoke keys."""


@key.command()
@click.argument("name")
@click.option(
    "--rate",
    default=RATE,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
    help="Requests a second; 0 is no limit.",
)
def create(name: str, rate: int) -> None:
    """Make a key for NAME, a person or a program, and print it this once."""
    echo(Keys(STATE_DIR).create(name, rate))


@key.command("list")
def list_keys() -> None:
    """List all keys: id, name, limit, when made, when revoked."""
    for found in Keys(STATE_DIR).all():
        state = f"revoked {found.revoked_at}" if found.revoked_at else "holds"
        rate = f"{found.rate}/s" if found.rate else "no limit"
        echo(f"{found.key_id}  {one_line(found.name):<24} {rate:<10} {found.created_at}  {state}")


@key.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Let a key hold no longer, within a second and without a restart."""
    found = Keys(STATE_DIR).revoke(key_id)
    echo(f"The key {found.key_id} of {one_line(found.name)} holds no longer.")
