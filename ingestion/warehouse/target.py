"""Where the warehouse is: the dbt profile, read as dbt reads it.

``profiles.yml`` is the one truth for the connection, so that dlt always lands where dbt reads.
dbt's own reader takes about a second to import; this one renders what profiles are made of
(``profile_text``), leaves the rest to dbt's, and is held equal to it by a test.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from ingestion.errors import UserError, error_line
from ingestion.warehouse import libpq
from ingestion.warehouse.paths import EXAMPLE, PROJECT_DIR, home, profiles_home
from ingestion.warehouse.profile_text import render

# What of a profile's output is read here.
_READ = {"type", "host", "port", "user", "password", "pass", "dbname", "database", "schema"}
_READ |= {"path", "server_side_parameters", "sslmode"}

ROLES = ("loader", "transformer", "reporter")


@dataclass(frozen=True)
class Target:
    """One output of the dbt profile: where the warehouse is and how to log in."""

    name: str
    host: str
    port: int
    user: str
    password: str
    dbname: str
    schema: str
    sslmode: str | None = None

    @property
    def url(self) -> str:
        """``postgresql://`` URL, the password in it."""
        password = f":{quote(self.password, safe='')}" if self.password else ""
        login = f"{quote(self.user, safe='')}{password}"
        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")  # IPv6; socket
        query = f"?sslmode={self.sslmode}" if self.sslmode else ""
        return f"postgresql://{login}@{host}:{self.port}/{quote(self.dbname, safe='')}{query}"

    @property
    def uri(self) -> str:
        """The same for programs here, which send UTF-8 whatever PGCLIENTENCODING says."""
        return f"{self.url}{'&' if '?' in self.url else '?'}client_encoding=utf8"

    @property
    def place(self) -> str:
        """Where it is, fit for a message: no password in it."""
        return f"{self.user}@{self.host}:{self.port}/{self.dbname}"

    def libpq_env(self) -> dict[str, str]:
        """The same place as libpq's environment variables, for psql and its kin."""
        env = {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGDATABASE": self.dbname,
        }
        return env | ({"PGSSLMODE": self.sslmode} if self.sslmode else {})

    def connect(self, **settings: str) -> Any:
        """Open a psycopg2 connection.

        Args:
            settings: of PostgreSQL, for its session.

        Raises:
            UserError: the server is not there, or refuses the login.
        """
        import psycopg2

        options = " ".join(f"-c{name}={value}" for name, value in settings.items())
        try:
            return psycopg2.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password,
                dbname=self.dbname,
                connect_timeout=10,
                client_encoding="utf8",  # whatever PGCLIENTENCODING says
                application_name="marquee",
                **({"sslmode": self.sslmode} if self.sslmode else {}),
                **({"options": options} if options else {}),
            )
        except psycopg2.OperationalError as error:
            raise UserError(_explain(self, str(error).strip())) from error


def _explain(target: Target, reason: str) -> str:
    if "password authentication failed" in reason or "no password supplied" in reason:
        hint = (
            f"Check user and password of target '{target.name}' in profiles.yml,"
            " or PGUSER and PGPASSWORD."
        )
    elif "does not exist" in reason and "database" in reason:
        hint = (
            f"Create it with: createdb -h {target.host} -p {target.port}"
            f" -U {target.user} -E UTF8 -T template0 {target.dbname}"
        )
    elif "Connection refused" in reason or "timeout" in reason:
        hint = (
            "Start it (the embedded server: marquee db start),"
            " or correct host and port in profiles.yml."
        )
    else:
        hint = "Check profiles.yml, or ask: marquee doctor"
    first = reason.splitlines()[0] if reason else "no answer"
    said = re.sub(r"^connection to server .*? failed: (FATAL: *)?", "", first)
    return f"Cannot connect to PostgreSQL at {target.place}: {said}\n{hint}"


def profiles_path() -> Path:
    """The profiles.yml that dbt would take: DBT_PROFILES_DIR, the project, ~/.dbt.

    One in ~/.dbt counts only if it has this project's profile; others there are for other projects.
    Where the project cannot be written to, it may be in the state folder as well.
    """
    folder = os.environ.get("DBT_PROFILES_DIR")
    if folder:
        return Path(folder) / "profiles.yml"
    here = PROJECT_DIR / "profiles.yml"
    place = profiles_home() / "profiles.yml"  # another where the checkout is not ours
    if os.access(here, os.R_OK) or (here == place and here.exists()):
        return here
    user_home = home()
    own = user_home and user_home / ".dbt" / "profiles.yml"
    if place.exists() or not (own and os.access(own, os.R_OK)):
        return place
    return own if f"\n{_profile_name()}:" in f"\n{own.read_text(encoding='utf-8')}" else place


def role_names() -> dict[str, str]:
    """What a role is for (loader, transformer, reporter) to its name, from dbt's variables."""
    variables = project()["vars"]
    return {role: variables[f"{role}_role"] for role in ROLES}


def marts_schema(target: Target) -> str:
    """The schema of the marts on a target."""
    return schema_name(project()["models"]["marquee"]["marts"]["+schema"], target)


def schema_name(name: str, target: Target) -> str:
    """A schema of dbt's on a target, by the rule of the macro generate_schema_name."""
    plain = target.name == project()["vars"]["default_target"]
    return name if plain else f"{target.schema}_{name}"


def _profile_name() -> str:
    return project()["profile"]


@cache
def project() -> dict:
    """dbt_project.yml; not to be changed."""
    return read_yaml((PROJECT_DIR / "dbt_project.yml").read_text(encoding="utf-8"))


def read_yaml(text: str) -> Any:
    """What a YAML text holds, read safely; by libyaml where PyYAML has it, as it is many times
    quicker.
    """
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


def read_target(name: str | None = None, profiles: Path | None = None) -> Target:
    """The named target of this project's profile, or its default one (DBT_TARGET, ``target:``).

    Without a profiles.yml libpq's variables are enough: the example's profile reads them.

    Raises:
        UserError: no profiles.yml, a broken one, or no such target.
    """
    with _output(name, profiles) as (path, chosen, output):
        if output.get("type") != "postgres":
            raise UserError(
                f"Target '{chosen}' in {path} is of type {output.get('type')};"
                " dlt lands in PostgreSQL only.\nChoose a postgres target with --target."
            )
        return Target(
            name=chosen,
            host=str(output["host"]),
            port=int(output["port"]),
            user=str(output["user"]),
            password=str(output.get("password", output.get("pass")) or ""),
            dbname=str(output.get("dbname", output.get("database"))),
            schema=str(output["schema"]),
            sslmode=output.get("sslmode") or os.environ.get("PGSSLMODE"),  # as libpq does for dbt
        )
    raise AssertionError("unreachable")


RAW_FILES = "spark.marquee.raw"  # in the session's parameters of a target of type spark


def read_copy_place(name: str) -> Path | str:
    """Where raw tables are copied to for a target of another engine.

    Returns:
        The file of a target of type duckdb, as dbt opens it; of type spark, the folder or URL
        that its profile names.

    Raises:
        UserError: no profiles.yml, a broken one, or no such target.
    """
    with _output(name, None) as (path, _, output):
        if output.get("type") == "duckdb":
            return PROJECT_DIR / str(output["path"])
        if output.get("type") != "spark":
            raise UserError(
                f"Target '{name}' in {path} is of type {output.get('type')},"
                " not duckdb or spark.\n"
                "Name such a target, as profiles.yml.example has two."
            )
        place = (output.get("server_side_parameters") or {}).get(RAW_FILES)
        if not place:
            raise UserError(
                f"Target '{name}' in {path} does not say where raw tables go.\n"
                f"Add {RAW_FILES} to its server_side_parameters, as profiles.yml.example has it."
            )
        return str(render(place, RAW_FILES))
    raise AssertionError("unreachable")


@contextmanager
def _output(name: str | None, profiles: Path | None) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    path = profiles or profiles_path()
    if not path.exists() and not profiles and libpq.naming():
        path = EXAMPLE
    if not path.exists():
        raise UserError(
            f"There is no {path}.\n"
            "Run `make run`, or copy profiles.yml.example there and fill it in."
        )
    profile_name = _profile_name()
    try:
        profile = (read_yaml(path.read_text(encoding="utf-8")) or {})[profile_name]
        name = name or os.environ.get("DBT_TARGET")
        name = name or str(render(profile.get("target", "default"), "target"))
        output = profile["outputs"][name]
        yield path, name, {key: render(value, key) for key, value in output.items() if key in _READ}
    except KeyError as error:
        raise UserError(
            f"{path} has no {error.args[0]!r} where the profile '{profile_name}' needs it.\n"
            "Compare it with profiles.yml.example."
        ) from error
    except (OSError, yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read: {error_line(error)}\nCompare it with profiles.yml.example."
        ) from error
