"""Without a profiles.yml, libpq's variables are enough; with none of them, the embedded server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestion.errors import UserError
from ingestion.tests.checkout import Checkout
from ingestion.tests.conftest import reachable_folder, unused_port
from ingestion.tests.test_server import scratch_server
from ingestion.warehouse import libpq
from ingestion.warehouse.target import Target


@pytest.fixture(scope="module")
def source() -> Iterator[Checkout]:
    folder = reachable_folder()
    yield Checkout(folder / "checkout").make()
    shutil.rmtree(folder)


@pytest.fixture
def checkout(source: Checkout, tmp_path: Path) -> Iterator[Checkout]:
    """Without a warehouse, a profile or a variable."""
    yield Checkout(source.folder, {"HOME": str(tmp_path)})
    source.run("marquee", "db", "stop")
    for name in (".marquee", "target", "logs", "dbt_packages"):
        shutil.rmtree(source.folder / name, ignore_errors=True)
    (source.folder / "profiles.yml").unlink(missing_ok=True)


def test_the_variables_alone_are_enough_for_every_command(
    checkout: Checkout, database: Target
) -> None:
    checkout.environment |= database.libpq_env()
    assert "your own, by PGHOST, PGPORT, PGDATABASE" in checkout.marquee("db", "status")
    assert checkout.marquee("db", "url").startswith(database.url)
    assert checkout.marquee("db", "psql", "-Atc", "select 1") == "1\n"
    assert "name the server" in checkout.run("marquee", "doctor").stdout
    assert "no open rejects" in checkout.marquee("rejects")
    checkout.marquee("ingest", "brands")
    done = checkout.run("marquee", "export", "marts", "--to", "out")
    assert "finds no marts" in done.stderr
    done = checkout.run("marquee", "db", "start")
    assert "unset PGHOST PGPORT PGDATABASE." in done.stderr
    checkout.marquee("deps")
    assert checkout.run("dbt", "run", "--select", "stg_brands__brands").returncode == 0
    assert checkout.run("dbt", "debug", PGDATABASE="not_there").returncode == 1
    assert not (checkout.folder / ".marquee" / "pgdata").exists()


def test_without_the_variables_the_embedded_server_is_taken_as_before(
    checkout: Checkout, database: Target
) -> None:
    checkout.marquee("db", "psql", "-c", "select 1", **database.libpq_env())
    checkout.marquee("rejects", **database.libpq_env())
    profile = checkout.folder / "profiles.yml"
    assert (profile.stat().st_mode & 0o777, database.password in profile.read_text()) == (
        0o600,
        False,
    )
    assert "There is no warehouse yet" in checkout.run("marquee", "db", "status").stderr
    assert "made and started" in checkout.marquee("db", "start", "--port", str(unused_port()))
    assert "the embedded PostgreSQL" in checkout.marquee("db", "status")
    url = checkout.marquee("db", "url", **database.libpq_env())
    assert f"@{database.host}:{database.port}/{database.dbname}" in url


def test_an_address_written_into_that_profile_counts(checkout: Checkout, database: Target) -> None:
    checkout.marquee("rejects", **database.libpq_env())
    profile = checkout.folder / "profiles.yml"
    text = profile.read_text().replace("env_var('PGPORT', '5432')", "env_var('PGPORT', '1')")
    profile.write_text(text)
    done = checkout.run("marquee", "ingest", "brands")
    assert "127.0.0.1:1/marquee" in done.stderr
    assert not (checkout.folder / ".marquee" / "pgdata").exists()


@pytest.mark.parametrize("way", ["passfile", "home", "service"])
def test_login_from_libpqs_files(
    checkout: Checkout, database: Target, tmp_path: Path, way: str
) -> None:
    known = database.libpq_env()
    password = known.pop("PGPASSWORD")
    home = Path(checkout.environment["HOME"])
    if way == "service":
        lines = ["[other]", "host=nowhere", "[warehouse]"]
        lines += [f"host={database.host}", f"port={database.port}", f"user={database.user}"]
        lines += [f"password={password}", f"dbname={database.dbname}"]
        (home / ".pg_service.conf").write_text("\n".join(lines))
        known = {"PGSERVICE": "warehouse", "PGHOST": "nowhere"}
    else:
        file = home / ".pgpass" if way == "home" else tmp_path / "passwords"
        file.write_text(f"*:{database.port}:*:{database.user}:{password}\n")
        file.chmod(0o600)
        known |= {} if way == "home" else {"PGPASSFILE": str(file)}
    checkout.environment |= known
    assert "45 rows" in checkout.marquee("ingest", "brands")
    made = str(tmp_path / "made.jsonl")
    checkout.marquee("generate", "transactions", "--rows", "10", "--out", made)
    checkout.marquee("ingest", "transactions", made)
    checkout.marquee("deps")
    checkout.marquee("dbt", "run", "--select", "stg_brands__brands")


def test_a_socket_is_a_host(checkout: Checkout) -> None:
    with scratch_server() as server:
        server.init(unused_port())
        folder = server.data.parent
        folder.chmod(0o777)
        with (server.data / "postgresql.conf").open("a") as configuration:
            configuration.write(f"unix_socket_directories = '{folder}'\n")
        server.start()
        checkout.environment |= server.target.libpq_env() | {"PGHOST": str(folder)}
        assert "45 rows" in checkout.marquee("ingest", "brands")
        made = str(folder / "made.jsonl")
        checkout.marquee("generate", "transactions", "--rows", "10", "--out", made)
        checkout.marquee("ingest", "transactions", made)
        url = checkout.marquee("db", "url").strip()
        assert checkout.marquee("db", "psql", url, "-Atc", "select 1") == "1\n"


def test_a_service_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGSERVICE", "nowhere")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    with pytest.raises(UserError, match=r"PGSERVICE=nowhere is in no service file .*services"):
        libpq.settle()
    monkeypatch.delenv("PGSERVICE")
    monkeypatch.setenv("PGHOST", "")
    libpq.settle()
    assert "PGHOST" not in os.environ


def test_the_encryption_that_the_environment_asks_for_is_asked_for(
    checkout: Checkout, database: Target
) -> None:
    checkout.environment |= database.libpq_env() | {"PGSSLMODE": "require"}
    assert checkout.marquee("db", "url").strip() == f"{database.url}?sslmode=require"
    done = checkout.run("marquee", "ingest", "brands")
    assert "server does not support SSL" in done.stderr
