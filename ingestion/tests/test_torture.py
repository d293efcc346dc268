"""Killed at any moment: after one more run, raw rows and facts are those of an undisturbed run.

Loads, dbt and the whole server are killed as by ``kill -9``, at moments from a seed. The long
version runs by ``make torture ROUNDS=30 SEED=7``.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ingestion.errors import UserError
from ingestion.pipeline import make_pipeline, one_at_a_time
from ingestion.sample.transactions import generate
from ingestion.sources import brands, transactions
from ingestion.sources.brands.settings import BRANDS
from ingestion.tests.built import BIN, Built
from ingestion.tests.conftest import reachable_folder, unused_port
from ingestion.tests.sockets import accepting
from ingestion.tests.test_dbt_commands import copy_of
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

ROUNDS = int(os.environ.get("MARQUEE_TORTURE_ROUNDS") or 0)
SEED = int(os.environ.get("MARQUEE_TORTURE_SEED") or random.SystemRandom().randrange(10**6))
SHORT_SEED = 7
long = pytest.mark.skipif(not ROUNDS, reason="long: make torture")
LINES = 10_000  # of transactions that come at a time
PATIENCE = 120  # seconds

# What differs between two runs over the same files: when, in how many loads, by which keys of dlt.
VOLATILE = {
    *("_dlt_load_id", "_dlt_id", "_dlt_root_id", "_dlt_parent_id"),
    *("_file_checksum", "file_checksum", "dlt_load_id"),
    *("landed_at", "loaded_at", "index_landed_at"),
    "file_line",  # of equal lines in two files, that counts which landed last
}
# Rows of the ledger that are not what is there.
COUNTED = (
    "select _dlt_load_id, _file_checksum, count(*) as rows from raw_transactions.{} group by 1, 2"
)
MISTAKEN = f"""
    select count(*) from raw_transactions.files
    left join ({COUNTED.format("transactions")}) as landed using (_dlt_load_id, _file_checksum)
    left join ({COUNTED.format("rejects")}) as rejected using (_dlt_load_id, _file_checksum)
    where (rows_landed, rows_rejected) <> (coalesce(landed.rows, 0), coalesce(rejected.rows, 0))
    or lines_read <> rows_landed + rows_rejected
"""
TABLES = {
    "transactions": ("transactions", "rejects", "files", "_dlt_pipeline_state"),
    "brands": ("brands", "brand_releases", "rejects", "files", "_dlt_pipeline_state"),
}


class Site(Built):
    """A warehouse whose programs are watched, and killed."""

    def start(self, *args: str) -> subprocess.Popen:
        """Start a program of the environment; what it prints comes with ``outcome``.

        Until then it must print less than a pipe holds (64 KiB), or it waits.
        """
        return subprocess.Popen(
            [BIN / args[0], *args[1:]],
            cwd=PROJECT_DIR,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_until_held(self, process: subprocess.Popen, other: int = 0) -> int:
        """Wait until a program waits for a lock that the test holds.

        Args:
            other: a connection that does not count.

        Returns:
            Which of its connections waits.
        """
        waiting = (
            "select pid from pg_stat_activity where wait_event_type = 'Lock'"
            f" and datname = current_database() and pid <> {other}"
        )
        deadline = time.monotonic() + PATIENCE
        while not (found := self.rows(waiting)):
            assert process.poll() is None, outcome(process)
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return found[0][0]


class Victim(Site):
    """A warehouse on a server of its own, which may be killed as well."""

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder / "state")
        self.server.start(unused_port())
        super().__init__(self.server.target, folder)
        self._started: list[subprocess.Popen] = []
        self.marquee("db", "start")  # loader and transformer work, as they do for users

    def start(self, *args: str) -> subprocess.Popen:
        self._started.append(process := super().start(*args))
        return process

    def kill(self, what: str, process: subprocess.Popen) -> None:
        """Kill ``server`` or the program itself, and wait until the program is gone."""
        if what == "server":
            self.kill_server()
        else:
            process.kill()
        said = outcome(process)
        assert "Traceback" not in said, said

    def kill_server(self) -> None:
        """Kill the postmaster and all processes of its own, which are the only ones."""
        if pid := self.server.pid:  # otherwise it is still dead from the last time
            with suppress(psutil.NoSuchProcess):  # the postmaster may end at any moment
                postmaster = psutil.Process(pid)
                for process in (postmaster, *postmaster.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        process.kill()

    def remove(self) -> None:
        """End what is still running: first the programs, as each would start the server again."""
        for process in self._started:
            process.kill()
            process.wait()
        self.server.delete()


def outcome(process: subprocess.Popen) -> str:
    """What a program said until it ended."""
    return process.communicate(timeout=PATIENCE)[0]


def done(process: subprocess.Popen) -> None:
    """Wait for a program that must succeed."""
    said = outcome(process)
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    home = reachable_folder()
    victim = Victim(home)
    try:
        yield victim
    finally:
        victim.remove()
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def calm(victim: Victim) -> Site:
    """Another database of the same server, in which nothing is killed."""
    execute(victim.target, "create database calm template template0")
    folder = victim.folder / "calm"
    folder.mkdir()
    calm = Site(replace(victim.target, dbname="calm"), folder)
    calm.write_profile()
    return calm


def execute(target: Target, statement: str) -> None:
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement)


def drop_films(site: Site) -> None:
    for schema in ("raw_tmdb", "raw_tmdb_staging"):
        execute(site.target, f"drop schema if exists {schema} cascade")
    if isinstance(site, Victim):
        site.marquee("db", "roles")  # the loader may not make schemas


def content(site: Built, schema: str, *tables: str) -> dict[str, tuple]:
    """Of each table its number of rows and a sum over them, whatever is volatile left out."""
    found = {}
    for table in tables:
        names = site.rows(
            "select column_name from information_schema.columns where table_schema ="
            f" '{schema}' and table_name = '{table}' order by ordinal_position"
        )
        columns = [f'"{name}"::text' for (name,) in names if name not in VOLATILE]
        if "__" in table:  # of a film
            film = f"select id from {schema}.movies as films where films._dlt_id = _dlt_parent_id"
            columns.append(f"({film})")
        row = f"hashtextextended(row({', '.join(columns)})::text, 0)::numeric"
        [found[table]] = site.rows(f"select count(*), sum({row}) from {schema}.{table}")
    return found


def raw(site: Built, source: str) -> dict[str, tuple]:
    """What has landed from a source."""
    if source == "transactions":  # not the ledger: how many loads it took is not its content
        return content(site, "raw_transactions", "transactions", "rejects")
    if source == "brands":
        return content(site, "raw_brands", *TABLES["brands"][:-1])
    children = ("genres", "production_companies", "production_countries", "spoken_languages")
    names = ("movies", "movie_metrics", "genres", *(f"movies__{name}" for name in children))
    return content(site, "raw_tmdb", *names)


def assert_sound(site: Built, *sources: str) -> None:
    """The ledger is right, and every row is of a load that is complete."""
    assert site.one(MISTAKEN) == 0
    for source in sources or TABLES:
        tables = TABLES[source]
        loads = f"raw_{source}._dlt_loads"
        assert site.one(f"select count(*) - count(distinct load_id) from {loads}") == 0
        for table in tables:
            rows = f"select count(*) from raw_{source}.{table} where _dlt_load_id not in"
            assert site.one(f"{rows} (select load_id from {loads} where status = 0)") == 0, table


def marts(site: Built) -> dict[str, tuple]:
    """Facts, dimensions and what is made of them."""
    tables = site.rows("select tablename from pg_tables where schemaname = 'marts'")
    return content(site, "marts", *(name for (name,) in tables))


class Inbox:
    """A folder of transactions that grow, in files that are added and corrected."""

    def __init__(self, folder: Path, seed: int, lines: int) -> None:
        self.folder = folder
        folder.mkdir()
        self.made = generate(lines, seed, folder / "pool")
        self._pool = (folder / "pool").open()
        self.grow(new=True)

    def grow(self, new: bool = False) -> None:
        """Lines come: at the end of the file that is the latest, or in a new one."""
        files = sorted(self.folder.glob("*.jsonl"))
        path = self.folder / f"{len(files):03}.jsonl" if new else files[-1]
        with path.open("a") as file:
            file.writelines(self._next())

    def correct(self) -> None:
        """The latest file is written anew, with other content."""
        path = sorted(self.folder.glob("*.jsonl"))[-1]
        path.write_text("".join(self._next()))

    def _next(self) -> list[str]:
        return [line for line, _ in zip(self._pool, range(LINES), strict=False)]


def commands(folder: Path) -> dict[str, tuple[str, ...]]:
    """The loads that are killed, by source."""
    return {
        "transactions": ("marquee", "ingest", "transactions", "--replace", str(folder)),
        "brands": ("marquee", "ingest", "brands", str(folder / "index.txt")),
        "tmdb": ("marquee", "ingest", "tmdb"),
    }


def write_index(folder: Path, version: int) -> None:
    """The bundled brand index, which has one brand more in each version."""
    line = "Brand {}\t652270625\t1\tJurassic World\t652270625\n"
    more = "".join(map(line.format, range(version)))
    (folder / "index.txt").write_text(BRANDS.sample.read_text(encoding="utf-8") + more)


# Short


def test_a_few_random_kills(victim: Victim, calm: Site) -> None:
    """Three loads at once; then loader and server in turn, while transactions land.

    Facts are made of raw rows alone, so these are compared; the long version compares all marts.
    """
    dice = random.Random(SHORT_SEED)
    inbox = Inbox(victim.folder / "in", seed=1, lines=5 * LINES)
    write_index(inbox.folder, 1)
    loads = commands(inbox.folder)
    loads["tmdb"] += ("--since", "2023-06-01")
    seconds = {}
    for source, command in loads.items():
        began = time.monotonic()
        calm.command(*command)
        seconds[source] = time.monotonic() - began

    at_work = {source: victim.start(*command) for source, command in loads.items()}
    slower = len(loads) / 2  # on two cores
    for source, process in sorted(at_work.items(), key=lambda item: seconds[item[0]]):
        kill_after(dice.uniform(0.3, 1) * seconds[source] * slower, victim, "loader", process)
    for what in ("server", "loader", "server"):
        inbox.grow(new=dice.random() < 0.5)
        process = victim.start(*loads["transactions"])
        kill_after(dice.uniform(0.3, 1) * seconds["transactions"], victim, what, process)

    for source, command in loads.items():
        victim.command(*command)  # the first one starts the server again
        if source == "transactions":
            calm.command(*command)
    assert_sound(victim)
    for source in loads:
        assert raw(victim, source) == raw(calm, source)


def kill_after(seconds: float, victim: Victim, what: str, process: subprocess.Popen) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    victim.kill(what, process)


@contextmanager
def losing_an_answer(target: Target, verb: bytes) -> Iterator[Target]:
    """A way to the server that breaks at the first COMMIT of rows, of a connection with this verb.

    The server has committed then, and its client does not know.
    """
    lost = threading.Event()

    def pump(source: socket.socket, sink: socket.socket, breaks: list[bool], up: bool) -> None:
        rows = False
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if up:
                    rows = rows or verb in data
                    if rows and b"COMMIT" in data and not lost.is_set():
                        lost.set()
                        breaks.append(True)
                elif breaks:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(client: socket.socket) -> None:
        server = socket.create_connection((target.host, target.port))
        breaks: list[bool] = []
        for ends, up in (((client, server), True), ((server, client), False)):
            threading.Thread(target=pump, args=(*ends, breaks, up), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener, accepting(listener, serve):
        yield replace(target, host="127.0.0.1", port=listener.getsockname()[1])
        assert lost.is_set()


@pytest.mark.parametrize("meanwhile", ["", "drop schema raw_{} cascade"], ids=["there", "dropped"])
@pytest.mark.parametrize("source", ["transactions", "brands"])
def test_rows_whose_commit_was_not_answered(
    source: str,
    meanwhile: str,
    database: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are there once, whether or not the schema has been dropped before the next run."""
    # an embedded server of the checkout is not asked why this one went away
    monkeypatch.setattr("ingestion.warehouse.access.chosen", lambda **_: None)
    inbox = Inbox(tmp_path / "in", seed=2, lines=100)
    write_index(inbox.folder, 1)

    def ingest(target: Target) -> None:
        pipeline = make_pipeline(source, target, tmp_path / "dlt")
        if source == "brands":
            brands.ingest_brands(inbox.folder / "index.txt", target, pipeline)
        else:
            transactions.ingest([inbox.folder], target, pipeline=pipeline)

    verb = {"brands": b"INSERT INTO", "transactions": b"COPY"}[source]
    with losing_an_answer(database, verb) as target, pytest.raises(UserError, match="did not take"):
        ingest(target)
    if meanwhile:
        execute(database, meanwhile.format(source))
    ingest(database)
    site = Built(database, tmp_path)
    rows = {"brands": 46, "transactions": inbox.made["landed"]}[source]
    for table, count in {source: rows, "files": 1, "_dlt_loads": 1}.items():
        assert site.one(f"select count(*) from raw_{source}.{table}") == count


# Several at work


@pytest.fixture(scope="module")
def site(built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A copy of the warehouse that ``marquee run`` has filled."""
    with copy_of(built, target, tmp_path_factory.mktemp("torture"), kind=Site) as copy:
        yield copy


def lock(site: Site, statement: str) -> closing:
    """Hold a lock until the end of the block."""
    connection = site.target.connect()
    connection.cursor().execute(statement)
    return closing(connection)


def test_a_load_under_way_keeps_others_out_and_is_no_fact(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    made = generate(1_000, 99, file)
    ingest = ("marquee", "ingest", "transactions", str(file))
    landed = f"raw_transactions.transactions where _file_name = '{file}'"
    facts = f"marts.fct_transactions where transaction_id in (select transaction_id from {landed})"
    with lock(site, "lock table raw_transactions._dlt_loads in share mode"):
        first = site.start(*ingest)
        held = site.wait_until_held(first)  # with all rows written, but not listed
        second = site.start(*ingest)
        assert "Another load of transactions is running" in outcome(second)
        assert second.returncode == 75
        assert site.one(f"select count(*) from {landed}") == 0
        site.dbt("run", "--select", "+fct_transactions")
        assert site.one(f"select count(*) from {facts}") == 0

        # Killed now, it would still be listed by the server once the lock is gone: so the next one
        # ends its connection before it looks.
        first.kill()
        outcome(first)
        third = site.start(*ingest)
        site.wait_until_held(third, other=held)
        assert site.one(f"select count(*) from pg_stat_activity where pid = {held}") == 0
    done(third)
    listed = f"raw_transactions._dlt_loads where load_id in (select _dlt_load_id from {landed})"
    assert site.one(f"select count(*) from {listed}") == 1
    assert site.one(f"select count(*) from {landed}") == made["landed"]


def test_two_loads_begun_at_once_land_a_file_once(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "new.jsonl"
    made = generate(1_000, 98, file)
    ingest = ("marquee", "ingest", "transactions", str(file))
    both = [site.start(*ingest), site.start(*ingest)]
    said = [outcome(process) for process in both]
    refused = [text for text in said if "Another load of transactions is running" in text]
    assert [process.returncode for process in both].count(75) == len(refused) < 2, said
    for table, rows in {"transactions": made["landed"], "files": 1}.items():
        query = f"select count(*) from raw_transactions.{table} where _file_name = '{file}'"
        assert site.one(query) == rows


def test_a_run_says_that_a_load_is_under_way(site: Site) -> None:
    with one_at_a_time("brands", site.target):
        refused = site.marquee("run", check=False)
    assert refused.returncode == 75
    assert "Another load of brands is running" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_build_beside_a_stream_of_loads(site: Site, tmp_path: Path) -> None:
    """Its tests pass, however much lands meanwhile, and so do those of the next one."""
    inbox = Inbox(tmp_path / "in", seed=3, lines=4 * LINES)
    build = site.start("dbt", "--quiet", "build", "--exclude-resource-type", "unit_test")
    assert stream(site, build, inbox, random.Random(SHORT_SEED)) > 1
    done(build)
    site.dbt("build", "--select", "source:transactions+", "source:brands+")


def stream(site: Site, build: subprocess.Popen, inbox: Inbox, dice: random.Random) -> int:
    """Land transactions and brands as long as a build is at work; returns how often."""
    rounds = 0
    while build.poll() is None:
        rounds += 1
        dice.choice([inbox.grow, inbox.correct, lambda: inbox.grow(new=True)])()
        write_index(inbox.folder, 100 + rounds)
        for source in ("transactions", "brands"):
            site.command(*commands(inbox.folder)[source])
    return rounds


# Long


FULL_REFRESH = "compiled/marquee/models/marts/transactions/fct_transactions.sql"
HANG = """
    create function marts.hang() returns trigger language plpgsql as
    'begin perform pg_advisory_xact_lock(1); return null; end';
    create trigger hang before insert on marts.fct_transactions execute function marts.hang()
"""


@long
def test_dbt_killed_amid_a_fact_leaves_what_a_full_refresh_gives(
    site: Site, tmp_path: Path
) -> None:
    """Between delete and insert of an increment, then before a full refresh takes effect."""
    generate(1_000, 97, tmp_path / "new.jsonl")
    site.marquee("ingest", "transactions", str(tmp_path / "new.jsonl"))
    site.dbt("run", "--select", "+fct_transactions", "--exclude", "fct_transactions")
    run = ("dbt", "run", "--select", "fct_transactions")
    fact = "select * from marts.fct_transactions"
    before = site.one(f"select count(*) from ({fact}) as fact")
    execute(site.target, HANG)
    try:
        for holding, command in {
            "select pg_advisory_lock(1)": run,
            f"{fact} limit 1": (*run, "--full-refresh"),
        }.items():
            with lock(site, holding):
                process = site.start(*command)
                site.wait_until_held(process)
                process.kill()
                outcome(process)
            assert site.one(f"select count(*) from ({fact}) as fact") == before
    finally:
        execute(site.target, "drop function marts.hang cascade")
    refreshed = (site.target_path / FULL_REFRESH).read_text()  # as the second one compiled it
    site.command(*run)
    assert site.one(f"select count(*) from ({fact}) as fact") > before
    for one, other in ((fact, refreshed), (refreshed, fact)):
        assert site.one(f"select count(*) from (({one}) except all ({other})) as missing") == 0
    left = "select count(*) from pg_class where relname ~ 'fct_transactions__dbt'"
    assert site.one(left) == 0


@long
def test_random_kills(victim: Victim, calm: Site) -> None:
    """Rounds of kills in a row, each followed by one run in peace; dbt is killed now and then."""
    print(f"\nROUNDS={ROUNDS} SEED={SEED}", flush=True)
    dice = random.Random(SEED)
    inbox = Inbox(victim.folder / "long", SEED, LINES * (4 * ROUNDS + 1))
    write_index(inbox.folder, 0)
    work = commands(inbox.folder) | {"dbt": ("dbt", "build")}
    seconds = {}
    for site in (victim, calm):
        drop_films(site)  # the short test has pulled some, as of another day than a first pull does
        for name, command in work.items():
            began = time.monotonic()
            site.command(*command)
            seconds[name] = time.monotonic() - began

    for number in range(1, ROUNDS + 1):
        name = dice.choice([*["transactions"] * 4, *["dbt"] * 2, "brands", "tmdb"])
        said = f"{number:4} {name:12}"
        if name == "transactions":
            dice.choice([inbox.grow, inbox.correct, lambda: inbox.grow(new=True)])()
        elif name == "brands":
            write_index(inbox.folder, number)
        elif name == "tmdb":  # lands once only
            drop_films(victim)
        for _ in range(dice.choice([1, 1, 2, 3])):
            what, moment = dice.choice(["program", "server"]), dice.uniform(0, seconds[name])
            said += f"  {what} after {moment:.2f} s"
            kill_after(moment, victim, what, victim.start(*work[name]))
            if name == "transactions" and dice.random() < 0.5:
                inbox.grow(new=dice.random() < 0.5)
        print(said, flush=True)
        if name == "dbt":
            victim.server.start()
            continue
        victim.command(*work[name])
        if name != "tmdb":
            calm.command(*work[name])
        assert_sound(victim)
        assert raw(victim, name) == raw(calm, name)

    build = victim.start("dbt", "--quiet", "build")
    stream(victim, build, inbox, dice)
    done(build)
    for source in ("transactions", "brands"):  # they come in another order, to the same end
        calm.command(*work[source])
    calm.dbt("build", "--full-refresh")
    victim.dbt("build")
    assert marts(victim) == marts(calm)
    for _ in range(3):
        process = victim.start("dbt", "build", "--full-refresh")
        kill_after(dice.uniform(0, seconds["dbt"]), victim, "program", process)
    victim.dbt("build")
    assert marts(victim) == marts(calm)
