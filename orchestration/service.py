"""Airflow on this machine: set up over the warehouse's server, and served until Ctrl-C.

Airflow lives in an environment of its own (``.venv-airflow``, made by ``make airflow``). What it
knows is in a database of its own, ``airflow``, on the warehouse's server. Its keys and the password
of the user ``admin`` stand in ``airflow.json`` (mode 0600) in the state folder, its logs below
``airflow`` there.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ingestion import interrupts
from ingestion.errors import UserError
from ingestion.terminal import echo
from ingestion.warehouse.paths import PROJECT_DIR, STATE_DIR, make_state_dir, write_private
from ingestion.warehouse.target import Target, profiles_path
from ingestion.warehouse.tool_database import ToolDatabase, sqlalchemy_url

HOST, PORT = "127.0.0.1", 8080
ENVIRONMENT = PROJECT_DIR / ".venv-airflow"
FOLDER = PROJECT_DIR / "orchestration"
POOL = "marquee"
OWN = ToolDatabase("airflow", "Airflow")
SERVERS = (  # none but the first listens anywhere
    ("api-server", "--host", HOST, "--workers", "1"),
    ("scheduler", "--skip-serve-logs"),
    ("dag-processor",),
    ("triggerer", "--skip-serve-logs"),
)
PATIENCE = 3.0  # seconds that they have to end by themselves


@dataclass
class Airflow:
    """Airflow with its metadata beside one target of the profile."""

    target: Target
    port: int = PORT

    @property
    def home(self) -> Path:
        return STATE_DIR / "airflow"

    @property
    def state_file(self) -> Path:
        return STATE_DIR / "airflow.json"

    @property
    def state(self) -> dict[str, str]:
        """``fernet_key``, ``jwt_secret``, ``secret_key`` and ``password``."""
        if not self.state_file.exists():
            return {}
        return json.loads(self.state_file.read_text(encoding="utf-8"))

    def prepare(self) -> bool:
        """Set Airflow up, as far as that has not been done, and bring its tables up to date.

        Returns:
            True when this call set it up.

        Raises:
            UserError: Airflow is not installed, or its database may not be made.
        """
        if not self._program().exists():
            raise UserError("Airflow is not installed here.\nInstall and start it: make airflow")
        OWN.make(self.target)
        make_state_dir(self.home)
        self.home.chmod(0o700)
        is_new = not self.state
        if is_new:
            self._save(
                fernet_key=base64.urlsafe_b64encode(os.urandom(32)).decode(),
                jwt_secret=secrets.token_urlsafe(48),
                secret_key=secrets.token_urlsafe(48),
                password=secrets.token_urlsafe(12),
            )
            echo("Setting Airflow up; this takes about a minute.")
        write_private(self._passwords(), json.dumps({"admin": self.state["password"]}))
        self.console("db", "migrate")
        self.console("pools", "set", POOL, "1", "Writes to the warehouse, one at a time")
        return is_new

    def console(self, *arguments: str) -> str:
        """Run a command of Airflow's; returns what it printed.

        Raises:
            UserError: it failed; the log has the whole of it.
        """
        done = subprocess.run(
            [self._program(), *arguments],
            env=self.environment(),
            cwd=PROJECT_DIR,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            log = self.home / "console.log"
            log.write_text(done.stdout + done.stderr, encoding="utf-8")
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"airflow {' '.join(arguments[:2])} failed: {last}\nSee {log}")
        return done.stdout

    def become(self, command: Sequence[str]) -> NoReturn:
        """Become a command of Airflow's own.

        Raises:
            UserError: Airflow has not been set up; or its scheduler would run the same tasks.
        """
        if not self.state or not self._program().exists():
            raise UserError("Airflow has not been set up yet.\nSet it up: make airflow")
        environment = self.environment()
        if tuple(command[:2]) == ("dags", "test"):
            if self.answers():
                raise UserError(
                    "Airflow is running, and its scheduler would run the same tasks beside the"
                    " test.\nEnd it first with Ctrl-C; or trigger a run on its page."
                )
            environment["MARQUEE_DAGS_TEST"] = "1"
        sys.stdout.flush()
        os.execve(self._program(), [str(self._program()), *command], environment)  # noqa: S606

    def serve(self) -> None:
        """Run Airflow's servers until Ctrl-C, or until one of them ends.

        Raises:
            UserError: one has ended.
        """
        started: dict[str, subprocess.Popen[bytes]] = {}
        with interrupts.giving_back(end_servers):
            try:
                for name, *options in SERVERS:
                    where = ["--port", str(self.port)] if name == "api-server" else []
                    started[name] = self._start(name, *options, *where)
                while all(process.poll() is None for process in started.values()):
                    time.sleep(0.5)
            finally:
                end_servers()
        ended = next(name for name, process in started.items() if process.returncode is not None)
        raise UserError(f"Airflow's {ended} has ended.\nSee {self._log(ended)}")

    def environment(self) -> dict[str, str]:
        """The environment of Airflow's programs, and so of the tasks that they run.

        Airflow's own variables that the user has set count, such as ``AIRFLOW_CONN_...``; where
        things are, who gets in, and the keys are said here.
        """
        address = f"http://{HOST}:{self.port}"
        usual = {
            "CORE__PARALLELISM": "4",
            "DAG_PROCESSOR__REFRESH_INTERVAL": "30",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
            "COSMOS__ENABLE_TELEMETRY": "False",
        }
        fixed = {
            "API__BASE_URL": address,
            "API__SECRET_KEY": self.state["secret_key"],
            "API_AUTH__JWT_SECRET": self.state["jwt_secret"],
            "CORE__DAGS_FOLDER": str(FOLDER / "dags"),
            "CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__FERNET_KEY": self.state["fernet_key"],
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__PLUGINS_FOLDER": str(FOLDER / "plugins"),
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._passwords()),
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "DATABASE__SQL_ALCHEMY_CONN": sqlalchemy_url(OWN.login(self.target)),
        }
        return (
            {f"AIRFLOW__{name}": text for name, text in usual.items()}
            | os.environ
            | {f"AIRFLOW__{name}": text for name, text in fixed.items()}
            | {
                "AIRFLOW_HOME": str(self.home),
                "DBT_PROFILES_DIR": str(profiles_path().parent),
                "MARQUEE_PROGRAMS": str(Path(sys.executable).parent),
                "MARQUEE_STATE_DIR": str(STATE_DIR),
                "MARQUEE_TARGET": self.target.name,
            }
        )

    def answers(self) -> bool:
        """Whether an Airflow answers at the port."""
        import requests

        try:
            answer = requests.get(f"http://{HOST}:{self.port}/api/v2/monitor/health", timeout=5)
            return "metadatabase" in answer.json()
        except (requests.RequestException, ValueError):
            return False

    def _start(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        with self._log(name).open("ab") as log:
            return subprocess.Popen(
                [self._program(), name, *options],
                env=self.environment(),
                cwd=PROJECT_DIR,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends them
            )

    def _log(self, server: str) -> Path:
        return self.home / f"{server}.log"

    def _passwords(self) -> Path:
        return self.home / "passwords.json"

    def _program(self) -> Path:
        return ENVIRONMENT / "bin" / "airflow"

    def _save(self, **values: str) -> None:
        write_private(self.state_file, json.dumps(self.state | values, indent=2) + "\n")


def end_servers() -> None:
    """End the servers and all that they run: programs of tasks are in sessions of their own."""
    import psutil

    left = psutil.Process().children(recursive=True)
    for process in left:
        with suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(left, timeout=PATIENCE)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
