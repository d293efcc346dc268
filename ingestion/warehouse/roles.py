"""Whose work is whose: loader, transformer, reporter, and the superuser of the embedded server.

On the embedded server daily work never runs as the superuser: what lands is written by the loader,
dbt runs as the transformer, whose login is in profiles.yml, and Superset reads as the reporter.
Their rights are those of the macro ``make_roles``, whose SQL is rendered here without dbt: a
server's start must not wait for dbt, nor depend on models that parse. On any other server the
profile's login does what it may.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from psycopg2 import sql

from ingestion.warehouse.embedded import Server
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.state import is_embedded
from ingestion.warehouse.target import Target, project, read_yaml, role_names, schema_name

EVIDENCE = "ops"  # schema of what each run did, and the source by which dbt reads it
MACRO = next(PROJECT_DIR.glob("macros/**/make_roles.sql"))


def acting_as(role: str, target: Target) -> Target:
    """The same place, logged in to as the role whose work it is.

    That is the embedded server's; on another one, in another database, or with a login of the
    user's own making, the profile's login does all.
    """
    embedded = Server()
    if not is_embedded(target) or target.dbname != embedded.target.dbname:
        return target
    if target.user not in {embedded.target.user, embedded.login("transformer").user}:
        return target
    login = embedded.login(role)
    return replace(target, user=login.user, password=login.password)


def owner_of_all(target: Target) -> Target:
    """The same place, logged in to as who may change what all roles own.

    That is the superuser of the embedded server; on another one the profile's login does all.
    """
    embedded = Server()
    if not is_embedded(target) or target.dbname != embedded.target.dbname:
        return target
    return embedded.target


def open_landing(source: str, target: Target) -> Target:
    """The loader's target, with a schema for a source that dbt's sources do not name.

    On the embedded server the loader may make none itself. The transformer may read it.
    """
    loader, owner = acting_as("loader", target), owner_of_all(target)
    if loader == target:
        return target
    with closing(owner.connect()) as connection, connection, connection.cursor() as cursor:
        names = {name: sql.Identifier(text) for name, text in role_names().items()}
        for folder in (f"raw_{source}", f"raw_{source}_staging"):
            cursor.execute("select to_regnamespace(quote_ident(%s))", (folder,))
            if cursor.fetchone() != (None,):
                continue
            for statement in _LANDING:
                cursor.execute(sql.SQL(statement).format(sql.Identifier(folder), **names))
    return loader


_LANDING = (
    "create schema {} authorization {loader}",
    "grant usage on schema {} to {transformer}",
    "alter default privileges for role {loader} in schema {} grant select on tables"
    " to {transformer}",
)


def rights(target: Target) -> str:
    """The SQL of the macro ``make_roles`` for the embedded server, where Marquee is alone."""
    from jinja2 import Environment, StrictUndefined

    (body,) = re.findall(r"do \$make_roles\$.*\$make_roles\$", MACRO.read_text("utf-8"), re.DOTALL)
    environment = Environment(undefined=StrictUndefined)  # noqa: S701 - SQL, not a web page
    return environment.from_string(body).render(
        ours=role_names(),
        limits=project()["vars"]["reporter_limits"],
        alone=True,
        loaded=landing_schemas(),
        built=[*built_schemas(target), schema_name(EVIDENCE, target)],
        evidence=schema_name(EVIDENCE, target),
        marts=[],  # a build's grants open them
        sql_text=_text,
        text_array=lambda texts: f"array[{', '.join(map(_text, texts))}]::text[]",
    )


def landing_schemas() -> list[str]:
    """Schemas of the raw tables: those of dbt's sources."""
    found = set()
    for path in PROJECT_DIR.glob("models/**/*.yml"):
        text = path.read_text("utf-8")
        if "\nsources:" in text:  # the others are many, and slow to read
            for source in read_yaml(text)["sources"]:
                if source["name"] != EVIDENCE:
                    found.add(source.get("schema") or source["name"])
    return sorted(found)


def built_schemas(target: Target) -> list[str]:
    """Schemas of what dbt makes on a target, as dbt_project.yml names them."""
    kinds = ("models", "seeds", "snapshots", "data_tests")
    config, whole = project(), schema_name("{}", target)
    return sorted({whole.format(name) for kind in kinds for name in _schemas(config.get(kind, {}))})


def _schemas(config: dict) -> Iterator[str]:
    for key, value in config.items():
        if key == "+schema":
            yield value
        elif isinstance(value, dict):
            yield from _schemas(value)


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
