"""Tokens and passwords are nowhere in what runs leave behind, whatever goes wrong in them."""

from __future__ import annotations

import base64
import gzip
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg2 import sql

from ingestion.sample.transactions import generate
from ingestion.sources.tmdb.standin import StandIn
from ingestion.sources.tmdb.standin_server import Fault
from ingestion.tests.built import BIN
from ingestion.tests.test_tmdb import films
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

# What is looked for. It stands amid signs that URLs, JSON and YAML write in their own ways.
CORES = {
    name: f"Kk9{name}Zz7" for name in ("Password", "Wrong", "Env", "DotEnv", "Toml", "Key", "Aws")
}
PASSWORD, WRONG = (f"p\u00e9 @:/%'\"{CORES[name]}" for name in ("Password", "Wrong"))
# Runs command lines one after the other, each as ``marquee --debug``, with variables and a .env of
# its own; prints what a traceback would, and returns with which codes they ended.
RUNNER = """
import json, os, sys, traceback
from pathlib import Path
from ingestion import cli
from ingestion.sources import tmdb

codes = []
for args, env, dotenv in json.load(sys.stdin):
    sys.argv[1:], tmdb.ENV_FILE = ["--debug", *args], Path(dotenv)
    os.environ.update(env)
    try:
        cli.main()
    except SystemExit as end:
        codes.append(end.code)
    except BaseException:
        traceback.print_exc()
        codes.append(1)
    for name in env:
        del os.environ[name]
Path(sys.argv[0]).with_suffix(".json").write_text(json.dumps(codes))
"""


@dataclass
class Site:
    """A warehouse of a role whose password is a marker.

    Attributes:
        target: where it is.
        folder: all that its programs write; also their home.
        said: what they printed.
    """

    target: Target
    folder: Path
    said: str = ""

    def write_profile(self) -> None:
        """Targets: a good one, one with a wrong password, one that may not make schemas."""
        good = {
            **{"type": "postgres", "host": self.target.host, "port": self.target.port},
            **{"user": self.target.user, "password": self.target.password},
            **{"dbname": self.target.dbname, "schema": "dev", "threads": 2},
        }
        outputs = {
            "dev": good,
            "wrong": good | {"password": WRONG},
            "barred": good | {"dbname": "template1"},
        }
        profile = {"marquee": {"target": "dev", "outputs": outputs}}
        (self.folder / "profiles.yml").write_text(yaml.safe_dump(profile))

    def run(self, *command: str, **options: Any) -> int:
        """Run a program; returns its exit code."""
        done = subprocess.run(
            command,
            cwd=PROJECT_DIR,
            env=os.environ
            | {
                "HOME": str(self.folder / "home"),
                "DLT_PROJECT_DIR": str(self.folder / "project"),
                "DBT_PROFILES_DIR": str(self.folder),
                "DBT_TARGET_PATH": str(self.folder / "target"),
                "DBT_LOG_PATH": str(self.folder / "logs"),
                "MARQUEE_STATE_DIR": str(self.folder / "state"),
                "SOURCES__TMDB__BACKOFF": "0.01",
                "SOURCES__TMDB__MAX_TRIES": "1",
                "RUNTIME__LOG_LEVEL": "DEBUG",  # dlt's
                "AWS_ACCESS_KEY_ID": CORES["Key"],
                "AWS_SECRET_ACCESS_KEY": CORES["Aws"],
                "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            },
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        self.said += done.stdout + done.stderr
        return done.returncode

    def marquee(self, *commands: tuple[list[str], dict[str, str], str]) -> list[int]:
        """Run ``marquee --debug`` with arguments, variables and .env; returns exit codes."""
        runner = self.folder / "runner.py"
        runner.write_text(RUNNER)
        assert self.run(sys.executable, str(runner), input=json.dumps(commands)) == 0, self.said
        return json.loads(runner.with_suffix(".json").read_text())

    def rows(self) -> Iterator[tuple[str, bytes]]:
        """Every row of every table, as text, and decoded where it is."""
        with closing(self.target.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "select schemaname, tablename from pg_tables"
                " where schemaname not in ('pg_catalog', 'information_schema')"
            )
            for schema, table in cursor.fetchall():
                cursor.execute(sql.SQL("select * from {}").format(sql.Identifier(schema, table)))
                for row in cursor:
                    for value in row:
                        yield f"{schema}.{table}", str(value).encode()
                        with suppress(TypeError, ValueError, zlib.error):
                            yield f"{schema}.{table}", zlib.decompress(base64.b64decode(value))

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Every file, unpacked where it is packed."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                packed = content[:2] == b"\x1f\x8b"
                name = str(path.relative_to(self.folder))
                yield name, gzip.decompress(content) if packed else content


@pytest.fixture
def role(target: Target) -> Iterator[str]:
    """A role that can log in with the marker of a password, and no more."""

    def execute(statement: str, *values: str) -> None:
        with closing(target.connect()) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(sql.SQL(statement).format(sql.Identifier("marked")), values)

    execute("create role {} login password %s", PASSWORD)
    yield "marked"
    execute("drop role {}")  # its database is gone by now


@pytest.fixture
def site(role: str, database: Target, tmp_path: Path) -> Site:
    with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
        grant = "grant create on database {} to {}"
        names = sql.Identifier(database.dbname), sql.Identifier(role)
        cursor.execute(sql.SQL(grant).format(*names))
    site = Site(replace(database, user=role, password=PASSWORD), tmp_path)
    (tmp_path / "home").mkdir()
    site.write_profile()
    return site


def test_no_secret_is_left_behind(site: Site) -> None:
    generate(500, 1, site.folder / "made.jsonl")
    land, made = ["ingest", "transactions"], str(site.folder / "made.jsonl")
    (site.folder / "project" / ".dlt").mkdir(parents=True)
    toml = site.folder / "project" / ".dlt" / "secrets.toml"
    toml.write_text(f'[sources.tmdb]\napi_token = "{CORES["Toml"]}"\n')
    dotenv = site.folder / ".env"
    dotenv.write_text(f"TMDB_API_TOKEN={CORES['DotEnv']}\n")

    runs = [(0, ["ingest", "brands"], {}, ""), (0, [*land, made], {}, "")]
    with ExitStack() as stand_ins:
        for place, env, file in (
            ("Toml", {}, ""),
            ("DotEnv", {}, str(dotenv)),
            ("Env", {"TMDB_API_TOKEN": CORES["Env"]}, str(dotenv)),
        ):
            refused = Fault(status=401, path="/movie/changes")  # what a second pull asks for
            stand_in = StandIn(films(3), token=CORES[place], faults=[refused])
            address = stand_ins.enter_context(stand_in).base_url
            for code, url in ((0, address), (1, address), (75, "http://127.0.0.1:1")):
                runs.append(
                    (code, ["ingest", "tmdb"], env | {"SOURCES__TMDB__BASE_URL": url}, file)
                )
        for target in (["--target", "wrong"], ["--target", "barred"]):
            for command in (["ingest", "brands"], [*land, made], ["doctor"]):
                runs.append((1, [*command, *target], {}, ""))
        runs.append((75, [*land, "s3://bucket/made.jsonl"], {}, ""))
        assert site.marquee(*(run[1:] for run in runs)) == [run[0] for run in runs], site.said
    dbt = str(BIN / "dbt"), "--debug"
    assert site.run(*dbt, "run", "--select", "stg_brands__brands") == 0
    assert site.run(*dbt, "debug", "--target", "wrong") == 1

    found, places = [], set()
    for place, content in [*site.files(), *site.rows(), ("said", site.said.encode())]:
        places.add(place)
        found += [(place, name) for name, core in CORES.items() if core.encode() in content]
    assert sorted(found) == [
        (".env", "DotEnv"),
        ("profiles.yml", "Password"),
        ("profiles.yml", "Wrong"),
        ("project/.dlt/secrets.toml", "Toml"),
    ]

    # it has looked where such things would be
    assert {"logs/dbt.log", "target/manifest.json", "raw_tmdb._dlt_pipeline_state"} <= places
    assert {place.rpartition("/")[2] for place in places} >= {"trace.pickle", "state.json"}
    assert [text for _, text in site.rows() if b'"read_until"' in text]
    for told in ("refuses the token", "password authentication failed", "permission denied"):
        assert told in site.said
