"""Superset over the marts of one target: set up, served, exported.

Superset lives in an environment of its own (``.venv-superset``, made by ``make superset``). What it
knows is in a database of its own, ``superset``, on the warehouse's server: a role of its own has it
on the embedded one, the profile's login elsewhere. Marts it reads as the reporter. Its secret key
and what was imported last stand in ``superset.json`` (mode 0600) in the state folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bi.superset import database
from bi.superset.assets import FOLDER, bundle, read, write
from bi.superset.checks import problems
from bi.superset.cleaning import cleaned
from bi.superset.database import DATABASE
from ingestion.dbt_runner import target_path
from ingestion.errors import UserError
from ingestion.terminal import echo
from ingestion.warehouse import tool_database
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.paths import PROJECT_DIR, STATE_DIR, write_private
from ingestion.warehouse.state import is_embedded
from ingestion.warehouse.target import Target, marts_schema, role_names

HOST, PORT = "127.0.0.1", 8088
KEY_VARIABLE = "MARQUEE_SUPERSET_SECRET_KEY"  # without it the key is made, and kept


# Its pages wait a minute for an answer: nothing runs on for one that has given up. Said for each
# connection, for the reporter may change what is set for the role.
LIMITS = {
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
    "client_connection_check_interval": "5s",
}


ENVIRONMENT = PROJECT_DIR / ".venv-superset"


@dataclass
class Superset:
    """Superset over one target of the profile."""

    target: Target

    @property
    def state_file(self) -> Path:
        return STATE_DIR / "superset.json"

    @property
    def state(self) -> dict[str, Any]:
        """``secret_key``, ``reporter`` (a password), and what the last import was made of."""
        if not self.state_file.exists():
            return {}
        return json.loads(self.state_file.read_text(encoding="utf-8"))

    def prepare(self) -> str | None:
        """Set Superset up and import the dashboards, as far as that has not been done.

        Returns:
            The password of the user ``admin`` when this call made that user and its password.

        Raises:
            UserError: Superset is not installed, there are no marts, or the assets do not fit them.
        """
        if not self._python().exists():
            raise UserError("Superset is not installed here.\nInstall and start it: make superset")
        assets, manifest = read(), self.manifest()
        if found := problems(assets, manifest):
            raise UserError("bi/superset does not fit the marts:\n" + "\n".join(found[:2]))
        self.make_database()
        files = bundle(assets, manifest, self.schema, sqlalchemy_url(self.reader(), LIMITS))
        print_of = hashlib.sha256(json.dumps([files, *self._versions()]).encode()).hexdigest()
        if self.state.get("imported") == print_of:
            return None
        first = not self.state.get("imported")
        echo(
            "Setting Superset up; this takes about a minute." if first else "Importing bi/superset."
        )
        told = os.environ.get("MARQUEE_SUPERSET_PASSWORD")
        fresh = secrets.token_urlsafe(12) if first and not told else None
        self._console("prepare", bundle=files, password=(told or fresh) if first else None)
        self._save(imported=print_of)
        return fresh

    def export(self, folder: Path = FOLDER) -> list[str]:
        """Write the dashboards as they are in Superset to ``bi/superset``, or another folder.

        Returns:
            Files that changed, relative to it.

        Raises:
            UserError: Superset has not been set up.
        """
        self._refuse_before_set_up()
        assets = cleaned(self._console("export"), read(), self.manifest(), self.schema)
        return write(assets, folder)

    def new_password(self) -> str:
        """Give the user ``admin`` a new password.

        Raises:
            UserError: Superset has not been set up.
        """
        self._refuse_before_set_up()
        fresh = secrets.token_urlsafe(12)
        self._console("set_password", password=fresh)
        return fresh

    def serve(self, port: int, host: str = HOST) -> None:
        """Become Superset's server, until it is stopped."""
        program = self._python().with_name("gunicorn")
        arguments = [
            f"--bind={host}:{port}",
            "--worker-class=gthread",
            "--workers=1",
            "--threads=12",
            "--timeout=120",
            "--log-level=warning",
            "superset.app:create_app()",
        ]
        os.execve(program, [str(program), *arguments], self._env())  # noqa: S606

    def dashboards(self) -> list[dict[str, Any]]:
        return [content for path, content in read().items() if path.startswith("dashboards/")]

    def reader(self) -> Target:
        """The login that reads the marts: the reporter's.

        On a server of the user's own its password comes from MARQUEE_REPORTER_PASSWORD and is kept;
        without one, the profile's login has to do.

        Raises:
            UserError: the embedded server has no reporter yet.
        """
        if is_embedded(self.target):
            return Server().login("reporter")
        password = os.environ.get("MARQUEE_REPORTER_PASSWORD") or self.state.get("reporter")
        if not password:
            return self.target
        if password != self.state.get("reporter"):
            self._save(reporter=password)
        return replace(self.target, user=role_names()["reporter"], password=password)

    @property
    def schema(self) -> str:
        """Where the marts are on this target."""
        return marts_schema(self.target)

    def manifest(self) -> dict[str, Any]:
        """dbt's manifest of the last build.

        Raises:
            UserError: there was none.
        """
        path = target_path() / "manifest.json"
        if not path.exists():
            raise UserError("There are no marts to show yet.\nBuild them: make run")
        return json.loads(path.read_text(encoding="utf-8"))

    def make_database(self) -> None:
        """Make the database for what Superset knows, and its secret key.

        Raises:
            UserError: that database belongs to another Superset, or may not be made.
        """
        if is_embedded(self.target):
            database.make(Server())
        else:
            database.OWN.make(self.target)
        if self.state.get("secret_key") or os.environ.get(KEY_VARIABLE):
            return
        with closing(self.metadata.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("select to_regclass('public.ab_user')")
            if cursor.fetchone()[0]:
                raise UserError(
                    f"The database '{DATABASE}' is a Superset's whose secret key is not in"
                    f" {self.state_file}.\nRestore that file; or, to begin anew, drop the database:"
                    f" drop database {DATABASE}"
                )
        self._save(secret_key=secrets.token_urlsafe(48))

    @property
    def metadata(self) -> Target:
        """The database for what Superset knows."""
        return database.OWN.login(self.target)

    def _refuse_before_set_up(self) -> None:
        if not self.state.get("imported"):
            raise UserError("Superset has not been set up yet.\nSet it up: make superset")

    def _save(self, **values: str) -> None:
        self.state_file.parent.mkdir(parents=True, exist_ok=True)
        write_private(self.state_file, json.dumps(self.state | values, indent=2) + "\n")

    def _python(self) -> Path:
        return ENVIRONMENT / "bin" / "python"

    def _versions(self) -> list[str]:
        requirements = (FOLDER / "requirements.txt").read_text(encoding="utf-8")
        return [requirements, metadata.version("marquee"), sqlalchemy_url(self.metadata)]

    def _env(self) -> dict[str, str]:
        ours = ("PG", "FLASK_", "SUPERSET_", "PYTHONPATH")
        env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return env | {
            KEY_VARIABLE: os.environ.get(KEY_VARIABLE) or self.state["secret_key"],
            "MARQUEE_SUPERSET_METADATA": sqlalchemy_url(self.metadata),
            "SUPERSET_CONFIG_PATH": str(FOLDER / "superset_config.py"),
            "TZ": "UTC",  # times of the marts are; "the last hour" is reckoned by this
        }

    def _console(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Do something inside Superset's environment.

        Raises:
            UserError: it failed; the log has the whole of it.
        """
        done = subprocess.run(
            [self._python(), FOLDER / "console.py", task],
            input=json.dumps(arguments),
            env=self._env(),
            capture_output=True,
            text=True,
            check=False,
        )
        log = STATE_DIR / "superset.log"
        log.write_text(done.stderr, encoding="utf-8")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"Superset cannot {task.replace('_', ' ')}: {last}\nSee {log}")
        return json.loads(done.stdout)


def sqlalchemy_url(target: Target, settings: dict[str, str] | None = None) -> str:
    """The address as SQLAlchemy writes it, with settings of PostgreSQL for each connection."""
    url = tool_database.sqlalchemy_url(target)
    if not settings:
        return url
    options = " ".join(f"-c{name}={value}" for name, value in settings.items())
    return f"{url}{'&' if '?' in url else '?'}options={quote(options)}"


def answers(address: str) -> bool:
    """Whether a Superset answers there."""
    import requests

    try:
        return requests.get(f"{address}/health", timeout=5).text.strip() == "OK"
    except requests.RequestException:
        return False
