"""What is wrong here, if anything: the checks behind ``marquee doctor``."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ingestion.errors import UserError
from ingestion.warehouse import libpq
from ingestion.warehouse.access import load_target
from ingestion.warehouse.fitness import problem
from ingestion.warehouse.paths import STATE_DIR, packages_dir, writable
from ingestion.warehouse.state import is_superuser
from ingestion.warehouse.target import Target, profiles_path, role_names

DISTRIBUTION = "marquee"  # its metadata are pyproject.toml's, as installed
PACKAGES = ("dbt-core", "dbt-postgres", "dlt", "duckdb", "pyarrow")
FREE_GIGABYTES = 2
RAW_TABLES = ("raw_tmdb.movies", "raw_brands.brands", "raw_transactions.transactions")

_MAKE = "Run: make run"


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: what was looked at.
        ok: True; False when Marquee cannot work like that; None when it can, with a warning.
        detail: what was found.
        remedy: what to do about it, in one line; empty when ok.
    """

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


def checks(target_loader: Callable[[], Target] = load_target) -> list[Check]:
    """Look at everything Marquee needs; none of it is changed, no secret is in any detail.

    Args:
        target_loader: gives the warehouse to look at, or raises UserError.
    """
    return [
        *_versions(),
        _profile(),
        *_warehouse(target_loader),
        _dbt_packages(),
        _token(),
        _state(),
        _disk(),
    ]


def _versions() -> Iterator[Check]:
    """Python and the packages that matter most against what pyproject.toml asks for."""
    try:
        python = SpecifierSet(metadata.metadata(DISTRIBUTION)["Requires-Python"] or "")
        requirements = map(Requirement, metadata.requires(DISTRIBUTION) or [])
    except metadata.PackageNotFoundError:
        yield Check("Python packages", False, "Marquee is not installed here", _MAKE)
        return
    wanted = {each.name: each.specifier for each in requirements}
    running = platform.python_version()
    yield Check(
        "Python",
        fits := python.contains(running, prereleases=True),
        f"{running}{'' if fits else f', wanted {python}'}",
        "" if fits else "Remove .venv and run: make setup PYTHON=python3.12",
    )
    for name in PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = ""
        specifier = wanted.get(name, SpecifierSet())
        fits = bool(version) and specifier.contains(version, prereleases=True)
        detail = version or "not installed"
        yield Check(
            name,
            fits,
            detail if fits else f"{detail}, wanted {name}{specifier}",
            "" if fits else "Remove .venv and run: make setup",
        )


def _profile() -> Check:
    """profiles.yml holds a password: it must be there, and should be its owner's only."""
    path = profiles_path()
    if not path.exists() and libpq.naming():
        return Check("profiles.yml", True, f"none: {', '.join(libpq.naming())} name the server")
    if not path.exists():
        remedy = f"{_MAKE}, or copy profiles.yml.example there and fill it in"
        return Check("profiles.yml", False, f"there is no {path}", remedy)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        detail = f"{path} can be read by others (mode {mode:04o})"
        return Check("profiles.yml", None, detail, f"Run: chmod 600 {path}")
    return Check("profiles.yml", True, str(path))


def _warehouse(target_loader: Callable[[], Target]) -> Iterator[Check]:
    """The server, and what has landed on it."""
    try:
        target = target_loader()
        with closing(target.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "select current_setting('server_version'),"
                # a loader has its schemas made for it
                " has_database_privilege(current_database(), 'create') or (select"
                " bool_and(has_schema_privilege(nspname, 'create')) from pg_namespace"
                " where starts_with(nspname, 'raw_')),"
                " array(select rolname::text from pg_roles where rolname = any(%s))",
                (list(role_names().values()),),
            )
            version, may_create, roles = cursor.fetchone()
            unfit = problem(cursor, target)
            cursor.execute(
                "select name, coalesce(nullif(reltuples, -1), n_live_tup)"
                " from unnest(%s) as name"
                " inner join pg_class on pg_class.oid = to_regclass(name)"
                " left join pg_stat_all_tables on relid = pg_class.oid",
                (list(RAW_TABLES),),
            )
            landed = dict(cursor.fetchall())
    except UserError as error:
        detail, _, remedy = error.message.partition("\n")
        yield Check("server", False, detail, remedy or "Compare profiles.yml with its example")
        return
    detail = f"PostgreSQL {version} at {target.place}"
    if unfit:
        yield Check("server", False, f"{detail}: {unfit[0]}", unfit[1])
    elif not may_create:
        detail += f": {target.user} may not create schemas"
        remedy = f"As its owner: grant create on database {target.dbname} to {target.user}"
        yield Check("server", False, detail, remedy)
    else:
        yield Check("server", True, detail)
    yield _raw_tables(landed)
    yield _roles(roles, target)


def _raw_tables(landed: dict[str, float]) -> Check:
    if not landed:
        return Check("raw tables", None, "nothing landed yet", _MAKE)
    counts = [
        f"{table} about {landed[table]:,.0f}" if table in landed else f"{table} not yet"
        for table in RAW_TABLES
    ]
    whole = len(landed) == len(RAW_TABLES)
    return Check("raw tables", whole or None, ", ".join(counts), "" if whole else _MAKE)


def _roles(there: list[str], target: Target) -> Check:
    names = role_names().values()
    if not there:  # that is a way to work, too
        detail = f"none: {target.user} does everything; marquee db roles makes them"
        return Check("roles", True, detail)
    if is_superuser(target):
        detail = f"{target.user}, the superuser, runs whatever a role plants in its tables"
        remedy = "Put the login of this into profiles.yml: marquee db url --role transformer"
        return Check("roles", None, detail, remedy)
    if missing := [name for name in names if name not in there]:
        return Check("roles", None, f"no {', '.join(missing)}", "Run: marquee db roles")
    return Check("roles", True, ", ".join(names))


def _dbt_packages() -> Check:
    if (packages_dir() / "dbt_utils").is_dir():
        return Check("dbt packages", True, "dbt_utils")
    return Check("dbt packages", False, "dbt_utils is not installed", "Run: marquee deps")


def _token() -> Check:
    """Where the TMDB token comes from; it is not shown."""
    import dlt

    from ingestion.sources.tmdb import find_token

    token = find_token()
    if not token:
        return Check("TMDB token", True, "none: the bundled sample is used")
    if os.environ.get("TMDB_API_TOKEN"):
        place = "the environment variable TMDB_API_TOKEN"
    else:
        place = "dlt's secrets" if dlt.secrets.get("sources.tmdb.api_token") == token else ".env"
    return Check("TMDB token", True, f"from {place}")


def _state() -> Check:
    """The folder that all is written to, or the one that it would be made in."""
    if writable(_there()):
        return Check("state", True, str(STATE_DIR))
    remedy = "Name a folder that you may write to: export MARQUEE_STATE_DIR=..."
    return Check("state", False, f"nothing can be written to {STATE_DIR}", remedy)


def _there() -> Path:
    return next(folder for folder in (STATE_DIR, *STATE_DIR.parents) if folder.exists())


def _disk() -> Check:
    free = shutil.disk_usage(_there()).free / 1e9
    detail = f"{free:,.1f} GB free"
    if free >= FREE_GIGABYTES:
        return Check("disk", True, detail)
    return Check("disk", None, detail, f"Free some space: {FREE_GIGABYTES} GB are a good start")
