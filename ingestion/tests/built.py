"""A warehouse that ``marquee run`` built, for the tests that look at the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ingestion.tests import forks
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

BIN = Path(sys.executable).parent


@dataclass
class Built:
    """A database that has been filled from nothing, in its own folder of state.

    Attributes:
        target: where the database is.
        folder: holds profiles.yml, dbt's artifacts and logs, dlt's working files.
        first_run: what the first ``marquee run`` printed.
        variables: set for all programs that are run.
    """

    target: Target
    folder: Path
    first_run: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def password(self) -> str:
        return self.target.password

    @property
    def target_path(self) -> Path:
        return self.folder / "target"

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which programs find this warehouse, and keep their files apart."""
        return os.environ | {
            "DBT_PROFILES_DIR": str(self.folder),
            "DBT_TARGET_PATH": str(self.target_path),
            "DBT_LOG_PATH": str(self.folder / "logs"),
            "MARQUEE_STATE_DIR": str(self.folder / "state"),
            **self.variables,
        }

    def write_profile(self) -> None:
        """A profile as a user of a server of their own would write it, with a second target."""
        output = {
            "type": "postgres",
            "host": self.target.host,
            "port": self.target.port,
            "user": self.target.user,
            "password": self.target.password,
            "dbname": self.target.dbname,
            "threads": 4,
        }
        outputs = {name: output | {"schema": name} for name in ("dev", "other")}
        profile = {"marquee": {"target": "dev", "outputs": outputs}}
        (self.folder / "profiles.yml").write_text(yaml.safe_dump(profile))

    def command(self, *args: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run a program of the environment against this warehouse."""
        done = forks.run([BIN / args[0], *args[1:]], cwd=PROJECT_DIR, env=self.environment)
        assert not check or done.returncode == 0, (
            f"{args}\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
        )
        return done

    def run(self) -> str:
        return self.command("marquee", "run").stdout

    def marquee(self, *args: str, check: bool = True) -> subprocess.CompletedProcess:
        return self.command("marquee", *args, check=check)

    def dbt(self, *args: str, check: bool = True) -> subprocess.CompletedProcess:
        return self.command("dbt", "--no-use-colors", *args, check=check)

    def rows(self, query: str) -> list[tuple]:
        with closing(self.target.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def one(self, query: str):
        return self.rows(query)[0][0]

    def execute(self, statement: str) -> None:
        with (
            closing(self.target.connect()) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)

    def row_counts(self) -> dict[str, int]:
        """Rows of every table of raw data, marts and snapshots."""
        tables = self.rows(
            "select schemaname || '.' || tablename from pg_tables where schemaname in"
            " ('raw_tmdb', 'raw_brands', 'raw_transactions', 'marts', 'snapshots')"
            " and tablename not like '\\_dlt%'"
        )
        return {name: self.one(f"select count(*) from {name}") for (name,) in tables}
