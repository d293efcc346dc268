"""Archives: any moment comes back; ``make test-restore`` is the drill with a warehouse of size.

The drill has as many transactions as ROWS says, ``MARQUEE_RESTORE_ROWS`` here.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import fsspec
import psutil
import pytest

from ingestion.errors import UserError
from ingestion.tests.built import BIN, Built
from ingestion.tests.conftest import reachable_folder
from ingestion.tests.test_backup import embedded, flip, follow, land, told, truncate
from ingestion.tests.test_inputs import aws, bucket, s3_server  # noqa: F401 - fixtures
from ingestion.tests.test_server import wait_for
from ingestion.tests.test_upgrade import BUILD, CARDS
from ingestion.warehouse import identity, server_settings
from ingestion.warehouse.backup import archive, recovery
from ingestion.warehouse.backup.catalog import Backups, find
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.paths import PROJECT_DIR

ROWS = int(os.environ.get("MARQUEE_RESTORE_ROWS") or 5000)
# a sum, so that a table of any size needs no memory
DIGEST = "select count(*), sum(hashtextextended(t::text, 0)::numeric) from {} as t"
WORDS = "create table {} as select g as id, md5(g::text) as word from generate_series(1, 5000) g"


def server_of(warehouse: Built) -> Server:
    return Server(warehouse.folder / "state")


def hashes(warehouse: Built) -> dict[str, tuple]:
    """A digest of every table."""
    tables = warehouse.rows(
        "select format('%I.%I', schemaname, tablename) from pg_tables"
        " where schemaname !~ '^pg_' and schemaname <> 'information_schema' order by 1"
    )
    return {name: warehouse.rows(DIGEST.format(name))[0] for (name,) in tables}


def now(warehouse: Built) -> str:
    """The server's time, once a transaction later than that has a later one."""
    found = warehouse.one("select clock_timestamp()")
    time.sleep(0.01)
    return found.isoformat()


def kill(server: Server) -> None:
    """As a power cut: all of its processes at once."""
    postmaster = psutil.Process(server.pid)
    processes = [*postmaster.children(recursive=True), postmaster]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=20)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the server's user can reach, with signs in its name that others act on."""
    folder = reachable_folder()
    yield folder / "it's 50% off & away"
    shutil.rmtree(folder)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder that the server's user can reach, on a disk: what it takes there is measured."""
    folder = Path(tempfile.mkdtemp(prefix="marquee-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


def test_restore_drill(disk: Path) -> None:
    """A change, a mistake, a killed server: all tables are as before the mistake."""
    place = disk / "archive"
    (disk / "warehouse").mkdir(0o711)
    with embedded(disk / "warehouse") as warehouse:
        land(warehouse, ROWS)
        server = server_of(warehouse)
        # as the transformer, who owns what dbt makes
        building = replace(warehouse, target=server.login("transformer"))
        building.write_profile()
        building.dbt(*BUILD, *CARDS, "--exclude", "daily_merchants+")
        begun = time.monotonic()
        warehouse.marquee("db", "start", "--archive", str(place))
        archived = time.monotonic() - begun
        warehouse.execute("update marts.fct_transactions set amount = amount + 1")
        before, moment = hashes(warehouse), now(warehouse)
        assert before["marts.fct_transactions"][0] > ROWS / 2
        warehouse.execute("drop schema marts cascade")
        kill(server)

        begun = time.monotonic()
        said = warehouse.marquee("db", "restore", str(place), "--to", moment, "--force").stdout
        took = time.monotonic() - begun
        assert hashes(warehouse) == before
        size = warehouse.one("select pg_database_size(current_database()) / 1024 ^ 2")
        print(
            f"\n{ROWS:,} transactions, {size:,.0f} MB: base backup {archived:.1f} s, restored and"
            f" open after {told(said, 'It is open after')} (target 60 s), with the base backup that"
            f" follows {took:.1f} s"
        )
        # the data from before the restore are there, too
        follow(told(said, "To go back"), warehouse)
        assert warehouse.one("select to_regnamespace('marts')") is None


def test_wal_waits_while_the_place_is_away_and_nothing_is_lost(place: Path) -> None:
    with embedded() as warehouse:
        server = server_of(warehouse)
        warehouse.marquee("db", "start", "--archive", str(place))
        status = warehouse.marquee("db", "status").stdout
        assert re.search(r"^archive +.* last base backup of .* no WAL waits$", status, re.MULTILINE)
        settings = dict(
            warehouse.rows(
                "select name, sourcefile from pg_settings where name in"
                " ('wal_level', 'archive_mode', 'archive_library', 'max_wal_senders')"
            )
        )
        assert set(settings.values()) == {str(server.data / "marquee.conf")}
        assert warehouse.one("show wal_level") == "replica"
        assert not any("archive" in word for word in psutil.Process(server.pid).cmdline())

        place.rename(place.with_name("elsewhere"))
        for name in ("one", "two"):
            warehouse.execute(WORDS.format(name))
            warehouse.execute("select pg_switch_wal()")
        failures = "select failed_count from pg_stat_archiver"
        wait_for(lambda: warehouse.one(failures) > 0)
        status = warehouse.marquee("db", "status").stdout
        assert re.search(
            r"^archive +.*not there.* 2 WAL files wait since .*No such file", status, re.MULTILINE
        )
        refused = warehouse.marquee("db", "backup", check=False)
        assert refused.returncode == 1
        assert "Bring its disk back" in refused.stderr
        assert not place.exists()
        # also through a crash
        kill(server)
        warehouse.marquee("db", "start")
        moment = now(warehouse)
        warehouse.execute("drop table one, two")
        place.with_name("elsewhere").rename(place)
        warehouse.execute("select pg_switch_wal()")
        ready = server.data / "pg_wal" / "archive_status"
        wait_for(lambda: not list(ready.glob("*.ready")), seconds=100)
        kill(server)
        shutil.rmtree(server.data / "pg_wal")  # nothing but the archive is left
        warehouse.marquee("db", "restore", str(place), "--to", moment, "--force")
        assert warehouse.one("select count(*) from one inner join two using (id)") == 5000


def test_a_file_of_another_server_is_not_overwritten(place: Path) -> None:
    """Also where that has archived under the same name."""
    with embedded() as warehouse:
        server = server_of(warehouse)
        warehouse.marquee("db", "start", "--archive", str(place))
        current = warehouse.one("select pg_walfile_name(pg_current_wal_lsn())")
        file = server_settings.wal_folder(server.data) / current
        file.write_bytes(b"another's")
        warehouse.execute("create table x (n int)")
        warehouse.execute("select pg_switch_wal()")
        wait_for(lambda: warehouse.one("select failed_count from pg_stat_archiver") > 0)
        assert file.read_bytes() == b"another's"
        assert "already exists" in warehouse.marquee("db", "status").stdout


@pytest.fixture
def archived(place: Path) -> Iterator[Built]:
    """A warehouse with an archive of two base backups, then three tables made one by one."""
    with embedded() as warehouse:
        warehouse.marquee("db", "start", "--archive", str(place))
        time.sleep(1.1)
        warehouse.marquee("db", "backup")
        warehouse.variables["MOMENT"] = now(warehouse)
        for name in ("a", "b", "c"):
            warehouse.execute(WORDS.format(name))
            warehouse.execute("select pg_switch_wal()")
            warehouse.variables[name] = now(warehouse)
        warehouse.execute("create table late as select 1 as n")
        warehouse.execute("select pg_switch_wal()")
        ready = server_of(warehouse).data / "pg_wal" / "archive_status"
        wait_for(lambda: not list(ready.glob("*.ready")))
        yield warehouse


def tables(warehouse: Built) -> list[str]:
    found = warehouse.rows("select relname from pg_class where relname in ('a', 'b', 'c', 'late')")
    return sorted(name for (name,) in found)


def restored(warehouse: Built, place: Path, moment: str) -> subprocess.CompletedProcess:
    return warehouse.marquee("db", "restore", str(place), "--to", moment, "--force", check=False)


def newest_base(place: Path) -> Path:
    return place / archive.bases(Backups(str(place)))[-1]


BASES: dict[str, Callable[[Path], object]] = {
    "a byte": lambda base: flip(base / "base.tar.gz"),
    "a byte of the WAL": lambda base: flip(base / "pg_wal.tar.gz"),
    "a shorter one": lambda base: truncate(base / "base.tar.gz", 0.5),
    "no file": lambda base: (base / "base.tar.gz").unlink(),
    "a byte of the manifest": lambda base: flip(base / "manifest.json"),
    "no manifest": lambda base: (base / "manifest.json").unlink(),
}


def test_what_is_damaged_is_never_restored(archived: Built, place: Path) -> None:
    """An older base backup leads to the same moment; where there is none, nothing changes."""
    line = newest_base(place).parent
    kept = place.with_name("kept")
    shutil.copytree(line, kept)
    for name, damage in BASES.items():
        damage(newest_base(place))
        found = restored(archived, place, archived.variables["b"])
        assert found.returncode == 0, (name, found.stderr)
        assert ("is damaged" in found.stdout) is (name != "no manifest")
        assert tables(archived) == ["a", "b"]
        for base in sorted(line.glob("base-*"))[:-1]:
            damage(base)
        for other in place.glob("archive-*"):
            if other != line:
                shutil.rmtree(other)
        before = server_of(archived).data
        found = restored(archived, place, archived.variables["b"])
        assert found.returncode == 1
        assert found.stderr.count("\n") == 2
        assert (server_of(archived).data, tables(archived)) == (before, ["a", "b"])
        shutil.rmtree(line)
        shutil.copytree(kept, line, copy_function=shutil.copy2)
        if not os.geteuid():
            owner = before.stat()
            for path in (line / "wal").rglob("*"):
                os.chown(path, owner.st_uid, owner.st_gid)
            os.chown(line / "wal", owner.st_uid, owner.st_gid)


def test_a_hole_in_the_wal_is_never_jumped(archived: Built, place: Path) -> None:
    server = server_of(archived)
    shutil.rmtree(server.data / "pg_wal" / "archive_status")
    files = sorted((newest_base(place).parent / "wal").glob("?" * 24))
    kill(server)
    shutil.rmtree(server.data / "pg_wal")
    for damage in (lambda path: flip(path, 0.0), lambda path: truncate(path, 0.5), Path.unlink):
        content = files[-2].read_bytes()
        damage(files[-2])
        found = restored(archived, place, archived.variables["c"])
        assert found.returncode == 1
        assert server.data == server_of(archived).data
        files[-2].write_bytes(content)
        if not os.geteuid():
            shutil.chown(files[-2], server.data.stat().st_uid)
    assert restored(archived, place, archived.variables["c"]).returncode == 0
    assert tables(archived) == ["a", "b", "c"]


def test_times_that_cannot_be_are_refused(archived: Built, place: Path) -> None:
    refusals = {
        "2020-01-01": r"base backups in .* begin at",
        "2999-01-01": "has not come yet",
        "yesterday": "is no time",
        now(archived): r"WAL in .* ends before",
    }
    for moment, why in refusals.items():
        found = restored(archived, place, moment)
        assert found.returncode
        assert re.search(why, found.stderr), found.stderr
        assert tables(archived) == ["a", "b", "c", "late"]
    refused = archived.marquee("db", "restore", str(place), check=False)
    assert re.search(r"has data.*\n.*--force", refused.stderr)


def test_a_restore_that_is_killed_changes_nothing(archived: Built, place: Path) -> None:
    server = server_of(archived)
    data, where = server.data, server.data.parent
    process = subprocess.Popen(
        [BIN / "marquee", "db", "restore", str(place), "--to", archived.variables["b"], "--force"],
        cwd=PROJECT_DIR,
        env=archived.environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not list(where.glob("init-*/pgdata/recovery.signal")):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    archived.marquee("db", "start")
    assert (server.data, tables(archived)) == (data, ["a", "b", "c", "late"])
    assert restored(archived, place, archived.variables["a"]).returncode == 0
    assert tables(archived) == ["a"]
    assert not list(where.glob("init-*"))
    # nor does the server of the unfinished data run any longer
    assert not [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(f"{where}/init-" in word for word in process.info["cmdline"] or ())
    ]


def test_every_restore_goes_on_in_an_archive_of_its_own(archived: Built, place: Path) -> None:
    """What was done after a restore, and what the restore took away, can both be reached."""
    assert restored(archived, place, archived.variables["a"]).returncode == 0
    archived.execute("create table b as select 'another' as word")
    archived.execute("select pg_switch_wal()")
    moment = now(archived)
    archived.execute("drop table a, b")
    found = restored(archived, place, moment)
    assert found.returncode == 0, found.stderr
    assert archived.rows("select * from b") == [("another",)]
    archived.execute("drop table a")
    archived.marquee("db", "restore", str(place), "--force")  # all that there is
    assert tables(archived) == ["b"]
    first = sorted(place.glob("archive-*"))[0]
    found = restored(archived, first, archived.variables["c"])
    assert found.returncode == 0, found.stderr
    assert tables(archived) == ["a", "b", "c"]


def test_another_machine_has_any_moment_and_its_own_passwords(archived: Built, place: Path) -> None:
    kill(server_of(archived))
    with embedded() as second:
        said = second.marquee("db", "restore", str(place), "--to", archived.variables["b"]).stdout
        assert "before" not in said
        server = server_of(second)
        assert tables(second) == ["a", "b"]
        assert server.passwords.isdisjoint(server_of(archived).passwords)
        for role in ("loader", "transformer", "reporter"):
            server.login(role).connect().close()
        land(second, 200)
        assert "no WAL waits" in second.marquee("db", "status").stdout
        second.marquee("db", "reset", "--yes")
        assert "archive" not in second.marquee("db", "status").stdout


def test_wal_goes_when_no_kept_base_backup_needs_it(archived: Built, place: Path) -> None:
    line = newest_base(place).parent
    unfinished = line / "base-20200101T000000Z-abcdef"
    unfinished.mkdir()
    before = len(list((line / "wal").iterdir()))
    time.sleep(1.1)
    said = archived.marquee("db", "backup", "--keep", "1").stdout
    assert said.count("Removed") == 2
    (kept,) = line.glob("base-*")
    facts = Backups(str(place)).manifest(f"{line.name}/{kept.name}")
    left = sorted(path.name for path in (line / "wal").glob("?" * 24))
    assert left[0] == facts["first_wal"]
    assert len(left) < before
    archived.execute("create table more as select 1 as n")
    moment = now(archived)
    archived.execute("drop table more")
    assert restored(archived, place, moment).returncode == 0
    assert archived.one("select n from more") == 1


def test_an_archive_in_a_store(bucket) -> None:  # noqa: F811
    """WAL is sent by a process with the credentials of who started the server."""
    url = f"{bucket.url}/archive"
    store = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    with embedded() as warehouse:
        server = server_of(warehouse)
        try:
            warehouse.marquee("db", "start", "--archive", url)
            warehouse.execute(WORDS.format("a"))
            moment = now(warehouse)
            warehouse.execute("drop table a")
            warehouse.execute("select pg_switch_wal()")
            wait_for(lambda: archive.state(server)["archive"].endswith("no WAL waits"), 60)
            environ = repr(psutil.Process(server.pid).environ())
            assert os.environ["AWS_SECRET_ACCESS_KEY"] not in environ
            found = find(url)
            assert len(store.ls(f"{found.place.root}/{found.name}/wal")) >= 2
            kill(server)
            shutil.rmtree(server.data / "pg_wal")
            said = warehouse.marquee("db", "restore", url, "--to", moment, "--force").stdout
            assert warehouse.one("select count(*) from a") == 5000
            assert found.name in said

            # where the store is away, WAL stays on this disk
            warehouse.variables["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
            warehouse.marquee("db", "stop")
            wait_for(lambda: not senders(server), 60)
            warehouse.marquee("db", "start")
            warehouse.execute("create table b as select 1")
            warehouse.execute("select pg_switch_wal()")
            wait_for(lambda: "WAL files wait since" in archive.state(server)["archive"], 60)
            wait_for(lambda: "connect" in archive.state(server)["archive"], 60)
            for process in senders(server):
                process.kill()
            del warehouse.variables["AWS_ENDPOINT_URL"]
            warehouse.marquee("db", "start")
            wait_for(lambda: archive.state(server)["archive"].endswith("no WAL waits"), 60)
        finally:
            for process in senders(server):
                process.kill()


def senders(server: Server) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"]
        and "ingestion.warehouse.backup.sending" in process.info["cmdline"]
        and str(server.home) in process.info["cmdline"]
    ]


def test_a_place_that_cannot_be_written_to_leaves_the_server_as_it_was(tmp_path: Path) -> None:
    with embedded() as warehouse:
        (tmp_path / "file").write_text("")
        for given in (str(tmp_path / "file"), "ftp://host/x", "s3://key:secret@bucket/x"):
            refused = warehouse.marquee("db", "start", "--archive", given, check=False)
            assert refused.returncode == 1
            assert refused.stderr.count("\n") == 2
            assert "secret" not in refused.stderr
        assert warehouse.one("show wal_level") == "minimal"
        refused = warehouse.marquee("db", "backup", check=False)
        assert "marquee db start --archive PLACE" in refused.stderr


def test_a_folder_that_is_none_of_ours_is_no_way_back(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("18\n")
    with embedded() as warehouse, pytest.raises(UserError, match="is not beside the data"):
        recovery.go_back(server_of(warehouse), tmp_path, force=True)


def test_a_copy_of_a_checkout_does_not_write_to_the_archive_of_the_original(place: Path) -> None:
    with embedded() as warehouse:
        warehouse.marquee("db", "start", "--archive", str(place))
        warehouse.marquee("db", "stop")
        (warehouse.folder / "copy").mkdir(mode=0o711)
        copy = Server(warehouse.folder / "copy" / "state")
        shutil.copytree(warehouse.folder / "state", copy.home)
        copy.home.chmod(0o711)
        copy.programs.own(copy.data)
        assert identity.settle(copy)
        assert server_settings.archive(server_of(warehouse).data)
        assert not server_settings.archive(copy.data)


def test_the_archive_is_off_again_when_told(place: Path) -> None:
    with embedded() as warehouse:
        warehouse.marquee("db", "start", "--archive", str(place))
        warehouse.marquee("db", "start", "--archive", str(place))  # nothing to do
        assert len(list(place.glob("archive-*"))) == 1
        warehouse.marquee("db", "start", "--no-archive")
        assert warehouse.one("show wal_level") == "minimal"
        assert "archive" not in warehouse.marquee("db", "status").stdout
