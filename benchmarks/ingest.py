"""How fast transactions land, beside other ways to land the same rows.

Run it with ``make bench-ingest ROWS=1000000``. Every way is a process of its own, from its start
to its end, and lands into a fresh database of a throw-away server. Ways take turns; medians are
printed. Memory is the peak of the process, without the server's. CPU is the processor time of the
process and of the server's, which other work on the machine disturbs less than the wall time.

- ``copy``: psql's ``\\copy`` of a CSV file that holds what the raw table holds, lineage columns
  included, into a table of the same columns: the limit. ``copy10``: the same with the contract's
  ten columns only.
- ``marquee``: ``marquee ingest transactions`` of the JSON Lines file as it was generated, with
  half a percent of lines that must be rejected; it makes schema and tables first.
- ``mapped``: the rows that land as a CSV of a European bank's kind, through a mapping: names of its
  own, days before months, local times, a decimal comma.
- ``before``: the same as ``marquee`` by another checkout's code (``--before``), for comparison.
- ``dlt``: a plain resource of dicts with dlt's defaults. It and pandas get the lines that land.
- ``pandas``: ``to_sql`` with its defaults, for a tenth of the rows, scaled up. It needs SQLAlchemy,
  which ``make bench-ingest`` installs into a folder of its own, and is left out without it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.running import MARQUEE, Run, database, execute, run
from ingestion.pipeline import working_dir
from ingestion.sources.transactions.settings import FIELDS
from ingestion.warehouse.access import load_target
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.programs import program
from ingestion.warehouse.target import Target

CODE = Path(__file__).resolve().parent.parent
SEED = 42
LAND = [*MARQUEE, "ingest", "transactions"]
MODEL = "bench_model"  # database with the tables that COPY fills
MAPPING = """\
columns:
  transaction_id: Referenz
  event_ts: {from: Zeit, format: "%d.%m.%Y %H:%M:%S", timezone: Europe/Berlin}
  user_id: Kunde
  amount: {from: Betrag, decimal: ","}
  merchant: Händler
  category: Kategorie
  city: Ort
  status: {from: Stand, values: {Bezahlt: APPROVED}}
  payment_method: Zahlart
  currency: Währung
"""
MAPPED = """
    copy (
        select
            transaction_id as "Referenz",
            to_char(event_ts at time zone 'Europe/Berlin', 'DD.MM.YYYY HH24:MI:SS') as "Zeit",
            user_id as "Kunde", replace(round(amount, 2)::text, '.', ',') as "Betrag",
            merchant as "Händler", category as "Kategorie", city as "Ort",
            replace(status, 'APPROVED', 'Bezahlt') as "Stand", payment_method as "Zahlart",
            currency as "Währung"
        from raw_transactions.transactions
        where extract(year from event_ts) < 2099
        union all
        select transaction_id, '01.02.2024 10:00:00', user_id, '1,00', merchant, category, city,
            status, payment_method, currency
        from raw_transactions.transactions
        where extract(year from event_ts) >= 2099
    ) to stdout csv header delimiter ';'
"""
SLOW = ("dlt", "pandas")
MANY = 2_000_000  # rows from which on the slow ways run once
PANDAS_SHARE = 10
SQLALCHEMY = Path(sys.executable).parent.parent / "pandas"


@dataclass
class Way:
    """A way to land: its label, the command for a database, what it needs of it, its runs."""

    label: str
    command: Callable[[Target], list[str]]
    template: str = "template0"
    rows: int = 0
    code: Path = CODE
    runs: list[Run] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="lines of the file")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way")
    parser.add_argument("--before", type=Path, help="another checkout, whose code lands too")
    parser.add_argument("--only", nargs="*", help="ways to run, such as copy marquee")
    arguments = parser.parse_args()
    # the server's user must not need to enter it; psql reads the files itself
    with tempfile.TemporaryDirectory(prefix="marquee-bench-") as folder:
        benchmark(Path(folder), arguments)


def benchmark(folder: Path, arguments: argparse.Namespace) -> None:
    """Make the files, let every way run, print the table."""
    rows, repeats, only = arguments.rows, arguments.repeats, arguments.only
    server = load_target()
    made, landing = folder / "made.jsonl", folder / "landing.jsonl"
    # in a process of its own: memory of this one would count as the others' (see _run)
    options = [f"--rows={rows}", f"--seed={SEED}", f"--out={made}"]
    _run([*MARQUEE, "generate", "transactions", *options], server, folder)
    _make_model(server, made, folder)
    landed = _others_files(server, made, folder, landing)

    ways = _ways(folder, made, landing, landed)
    if arguments.before:
        code = arguments.before.resolve()
        landing_before = [sys.executable, "-m", "ingestion", "ingest", "transactions", str(made)]
        ways["before"] = Way(
            f"marquee ingest transactions, {code.name}",
            lambda _: landing_before,
            "template0",
            landed,
        )
        ways["before"].code = code
    if not SQLALCHEMY.exists():
        print(f"pandas is left out: there is no SQLAlchemy in {SQLALCHEMY}.\n")
        del ways["pandas"]
    ways = {name: way for name, way in ways.items() if not only or name in only}
    for turn in range(repeats):
        for name, way in ways.items():
            if turn == 0 or rows < MANY or name not in SLOW:
                with database(server, "bench_run", way.template) as target:
                    way.runs.append(_run(way.command(target), target, folder, way.code))
                    _check(target, way, name)
                last = way.runs[-1]
                print(
                    f"{name}: {last.seconds:.1f} s, CPU {last.cpu:.1f} s, {last.memory:.0f} MB",
                    file=sys.stderr,
                )
    _print(ways, rows, rows - landed)


def _ways(folder: Path, made: Path, landing: Path, rows: int) -> dict[str, Way]:
    psql = [program("psql"), "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--command"]
    python, here = sys.executable, str(Path(__file__).resolve())

    def child(way: str, share: int = 1) -> Callable[[Target], list[str]]:
        return lambda target: [python, here, way, str(landing), target.url, str(rows // share)]

    return {
        "copy": Way(
            "psql COPY, all columns of the raw table (the limit)",
            lambda _: [*psql, f"\\copy bench.copy from '{folder}/copy.csv' csv"],
            MODEL,
            rows,
        ),
        "copy10": Way(
            "psql COPY, the contract's ten columns only",
            lambda _: [*psql, f"\\copy bench.copy10 from '{folder}/copy10.csv' csv"],
            MODEL,
            rows,
        ),
        "marquee": Way(
            "marquee ingest transactions",
            lambda _: [*LAND, str(made)],
            rows=rows,
        ),
        "mapped": Way(
            "marquee ingest transactions, a mapped CSV",
            lambda _: [*LAND, f"{folder}/mapped.csv", "--mapping", f"{folder}/mapped.yml"],
            rows=rows,
        ),
        "dlt": Way("dlt, dict rows, defaults", child("dlt"), rows=rows),
        "pandas": Way(
            f"pandas to_sql, defaults (1/{PANDAS_SHARE} of the rows)",
            child("pandas", PANDAS_SHARE),
            rows=rows // PANDAS_SHARE,
        ),
    }


def _make_model(server: Target, made: Path, folder: Path) -> None:
    """Make the database whose copies COPY fills: tables like those that Marquee makes."""
    few = folder / "few.jsonl"
    with made.open("rb") as file:
        few.write_bytes(b"".join(line for line, _ in zip(file, range(1_000), strict=False)))
    execute(server, f"create database {MODEL} template template0")
    target = replace(server, dbname=MODEL)
    _run([*LAND, str(few)], target, folder)
    ten = ", ".join(FIELDS)
    execute(
        target,
        "create schema bench",
        "create table bench.copy (like raw_transactions.transactions including all)",
        f"create table bench.copy10 as select {ten} from bench.copy",  # noqa: S608
        "drop schema raw_transactions cascade",
        "vacuum analyze",
    )


def _others_files(server: Target, made: Path, folder: Path, landing: Path) -> int:
    """Write what other ways land: CSV files of the rows in the raw table, JSON lines that land.

    Returns:
        How many rows that is.
    """
    with database(server, "bench_run") as target:
        _run([*LAND, str(made)], target, folder)
        with closing(target.connect()) as connection, connection.cursor() as cursor:
            for name, columns in (("copy", "*"), ("copy10", ", ".join(FIELDS))):
                with (folder / f"{name}.csv").open("wb") as file:
                    cursor.copy_expert(
                        f"copy (select {columns} from raw_transactions.transactions)"  # noqa: S608
                        " to stdout csv",
                        file,
                    )
            landed = cursor.rowcount
            (folder / "mapped.yml").write_text(MAPPING)
            with (folder / "mapped.csv").open("wb") as file:
                cursor.copy_expert(MAPPED, file)
            cursor.execute("select _file_line from raw_transactions.rejects")
            rejected = {line for (line,) in cursor.fetchall()}
    with made.open("rb") as lines, landing.open("wb") as file:
        file.writelines(line for at, line in enumerate(lines, 1) if at not in rejected)
    return landed


def _run(command: list[str], target: Target, folder: Path, code: Path = CODE) -> Run:
    """Run a command of a checkout, and count what the server did for it."""
    execute(target, "checkpoint")
    shutil.rmtree(working_dir(target), ignore_errors=True)  # of the run before
    state = Path(tempfile.mkdtemp(prefix="state-", dir=folder))
    served = _server_cpu(target)
    # dlt looks for settings where it stands: the others run without the project's
    done = run(command, target, state, code if "ingestion" in command else state)
    shutil.rmtree(state)
    return done._replace(cpu=done.cpu + _server_cpu(target) - served)


def _server_cpu(target: Target) -> float:
    """Processor time of the server's connections that have ended, in seconds."""
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        others = (
            "select count(*) from pg_stat_activity"
            " where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        while cursor.execute(others) or cursor.fetchone()[0]:
            time.sleep(0.05)
    times = psutil.Process(Server().pid).cpu_times()  # of the throw-away server: see `scratch`
    return times.children_user + times.children_system


def _check(target: Target, way: Way, name: str) -> None:
    """Whether all rows have landed."""
    tables = {"copy": "bench.copy", "copy10": "bench.copy10", "pandas": "transactions"}
    table = tables.get(name, "raw_transactions.transactions")
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"select count(*) from {table}")  # noqa: S608 - names of ours
        found = cursor.fetchone()[0]
    if found != way.rows:
        sys.exit(f"{name}: {found:,} rows have landed instead of {way.rows:,}.")


def _print(ways: dict[str, Way], lines: int, rejected: int) -> None:
    limit = ways.get("copy")
    rows = lines - rejected
    print(f"{lines:,} lines of JSON, {rejected:,} of them to be rejected; medians\n")
    print(f"| {'way':<52} | runs | seconds |    rows/s | of COPY | CPU, s | memory, MB |")
    print(f"|{'-' * 54}|-----:|--------:|----------:|--------:|-------:|-----------:|")
    for way in ways.values():
        memory = statistics.median(run.memory for run in way.runs)
        rate = _rate(way)
        ratio = f"{rate / _rate(limit):.3f}" if limit else ""
        seconds = rows / rate  # scaled where a way has landed a part of the rows
        cpu = statistics.median(run.cpu for run in way.runs) * rows / way.rows
        print(
            f"| {way.label:<52} | {len(way.runs):>4} | {seconds:>7.1f} | {rate:>9,.0f} |"
            f" {ratio:>7} | {cpu:>6.1f} | {memory:>10,.0f} |"
        )


def _rate(way: Way) -> float:
    """Rows a second, by the median."""
    return way.rows / statistics.median(run.seconds for run in way.runs)


# The other ways, in their own processes


def land_with_dlt(file: Path, url: str, _: int) -> None:
    """What anybody would write first."""
    import json

    import dlt

    def rows() -> Iterator[dict]:
        with file.open() as lines:
            for line in lines:
                yield json.loads(line)

    pipeline = dlt.pipeline(
        "bench",
        destination=dlt.destinations.postgres(url),
        dataset_name="raw_transactions",
        pipelines_dir=os.environ["BENCH_STATE"],
    )
    pipeline.run(dlt.resource(rows, name="transactions"))


def land_with_pandas(file: Path, url: str, rows: int) -> None:
    import pandas as pd

    sys.path.append(str(SQLALCHEMY))
    import sqlalchemy

    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    frame = pd.read_json(file, lines=True, nrows=rows)
    frame.to_sql("transactions", engine, index=False)


if __name__ == "__main__":
    others = {"dlt": land_with_dlt, "pandas": land_with_pandas}
    if len(sys.argv) == 5 and sys.argv[1] in others:
        way, path, place, number = sys.argv[1:]
        others[way](Path(path), place, int(number))
    else:
        main()
