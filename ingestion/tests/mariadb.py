"""A MariaDB for tests: a process of its own on 127.0.0.1, whose data are thrown away."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestion.tests.conftest import reachable_folder, unused_port

PASSWORD = "s3cr3t @:/%"
URL_PASSWORD = "s3cr3t%20%40%3A%2F%25"


@dataclass(frozen=True)
class MariaDB:
    """A server that runs, with a database ``shop`` and a user of the same name."""

    port: int

    @property
    def url(self) -> str:
        return f"mariadb://shop:{URL_PASSWORD}@127.0.0.1:{self.port}/shop"

    def execute(self, *statements: str) -> list[tuple]:
        """Run statements, and give the rows of the last one."""
        with closing(_connect(self.port, "shop", PASSWORD, "shop")) as connection:
            with connection.cursor() as cursor:
                cursor.execute("set sql_mode = ''")  # zero dates and the like
                cursor.execute("set time_zone = '+02:00'")
                for statement in statements:
                    cursor.execute(statement)
                rows = list(cursor.fetchall())
            connection.commit()
        return rows


def _connect(port: int, user: str, password: str, database: str | None = None) -> Any:
    import pymysql

    return pymysql.connect(
        host="127.0.0.1", port=port, user=user, password=password, database=database
    )


def missing() -> str | None:
    """Why there can be no server here."""
    for program in ("mariadbd", "mariadb-install-db"):
        if not _program(program):
            return f"there is no {program}: apt install mariadb-server"
    return None


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


@contextmanager
def running() -> Iterator[MariaDB]:
    folder, port = reachable_folder(), unused_port()
    user = ["--user=root"] if os.getuid() == 0 else []
    subprocess.run(
        [
            *(_program("mariadb-install-db"), "--no-defaults", f"--datadir={folder / 'data'}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db", *user),
        ],
        check=True,
        capture_output=True,
    )
    process = subprocess.Popen(
        [
            *(_program("mariadbd"), "--no-defaults", f"--datadir={folder / 'data'}", *user),
            *(f"--socket={folder / 'socket'}", f"--port={port}", "--bind-address=127.0.0.1"),
            *(f"--pid-file={folder / 'pid'}", "--innodb-flush-log-at-trx-commit=0"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("w"),
    )
    try:
        _make_shop(process, port, folder)
        yield MariaDB(port)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _make_shop(process: subprocess.Popen, port: int, folder: Path) -> None:
    import pymysql

    until = time.monotonic() + 60
    while True:
        try:
            connection = _connect(port, "root", "")
            break
        except pymysql.err.OperationalError:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, "MariaDB does not start"
            time.sleep(0.1)
    with closing(connection), connection.cursor() as cursor:
        cursor.execute("create database shop character set utf8mb4")
        cursor.execute("create user shop@'127.0.0.1' identified by %s", (PASSWORD,))
        cursor.execute("grant all on shop.* to shop@'127.0.0.1'")
