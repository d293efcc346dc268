"""How fast a table of another database lands: ``make bench-database``.

A plain table of PostgreSQL is copied from one database of a server to another one, each way into a
fresh database, in turns. A first round is not counted: in it Python compiles its modules.

- ``psql``: ``COPY ... TO`` piped into ``COPY ... FROM`` as text, into a table that is there: the
  limit.
- ``marquee``: ``marquee ingest database URL --table payments``, the start of Python and all.
- ``its load``: of that, what the ledger says the table took: looking at it, reading, loading.
- ``again``: the same command once more: the table lands in place of what has landed.
- ``dlt``: dlt's ``sql_database`` with its backend ``pyarrow`` and otherwise its defaults.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.running import MARQUEE, Run, database, run
from ingestion.warehouse.access import load_target
from ingestion.warehouse.programs import program
from ingestion.warehouse.target import Target

WAYS = ("psql", "marquee", "its load", "again", "dlt")
TABLE = """
    create table payments (
        id bigint primary key,
        customer_id integer not null,
        amount numeric(12, 2) not null,
        currency char(3) not null,
        status varchar(20) not null,
        paid_at timestamp with time zone not null,
        is_refund boolean not null,
        note text
    )
"""
ROWS = """
    insert into payments
    select
        n, mod(n, 90000), mod(n, 1000000) / 100.0, (array['EUR', 'USD', 'PLN'])[1 + mod(n, 3)],
        (array['approved', 'declined', 'pending'])[1 + mod(n, 3)],
        timestamp with time zone '2024-01-01 00:00:00+00' + n * interval '1 second', mod(n, 50) = 0,
        case when mod(n, 4) = 0 then 'order ' || md5(n::text) end
    from generate_series(1, %s) as n
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dlt", help="be dlt's side: the URL to read")
    arguments = parser.parse_args()
    if arguments.dlt:
        _land_with_dlt(arguments.dlt)
        return
    server = load_target()
    runs: dict[str, list[Run]] = {name: [] for name in WAYS}
    with database(server, "bench_source") as source, tempfile.TemporaryDirectory() as folder:
        with closing(source.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute(TABLE)
            cursor.execute(ROWS, (arguments.rows,))
        _round(server, source, arguments.rows, Path(folder), {name: [] for name in runs})
        for _ in range(arguments.repeats):
            _round(server, source, arguments.rows, Path(folder), runs)
    print(f"{arguments.rows:,} rows, the median of {arguments.repeats}\n")
    print(f"{'way':<10} {'wall, s':>9} {'CPU, s':>9} {'rows/s':>12} {'of psql':>9} {'MB':>6}")
    limit = statistics.median(run.seconds for run in runs["psql"])
    for name, found in runs.items():
        seconds, cpu, memory = (statistics.median(values) for values in zip(*found, strict=True))
        print(
            f"{name:<10} {seconds:>9.2f} {cpu:>9.2f} {arguments.rows / seconds:>12,.0f}"
            f" {limit / seconds:>9.3f} {memory:>6.0f}"
        )


def _round(
    server: Target, source: Target, rows: int, folder: Path, runs: dict[str, list[Run]]
) -> None:
    with database(server, "bench_psql") as target:
        with closing(target.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute(TABLE.replace(" primary key", ""))
        psql = program("psql")
        pipe = (
            f"'{psql}' '{source.url}' -qc 'copy payments to stdout'"
            f" | '{psql}' '{target.url}' -qc 'copy payments from stdin'"
        )
        runs["psql"].append(run(["sh", "-c", pipe], target, folder))
        _check(target, "public.payments", rows)
    command = [*MARQUEE, "ingest", "database", source.url, "--table", "payments", "--name", "bench"]
    with database(server, "bench_marquee") as target:
        for name in ("marquee", "again"):
            runs[name].append(run(command, target, folder))
            _check(target, "raw_bench.payments", rows)
            if name == "marquee":
                runs["its load"].append(runs[name][-1]._replace(seconds=_seconds_of_load(target)))
    with database(server, "bench_dlt") as target:
        this = [sys.executable, __file__, "--dlt", source.url]
        runs["dlt"].append(run(this, target, folder))
        _check(target, "raw_bench.payments", rows)


def _land_with_dlt(url: str) -> None:
    import dlt
    from dlt.sources.sql_database import sql_table

    pipeline = dlt.pipeline(
        "bench", dataset_name="raw_bench", destination=dlt.destinations.postgres(load_target().url)
    )
    rows = sql_table(
        url.replace("postgresql:", "postgresql+psycopg2:"), "payments", backend="pyarrow"
    )
    rows.write_disposition = "replace"
    pipeline.run(rows)


def _check(target: Target, table: str, rows: int) -> None:
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"select count(*), sum(id) from {table}")  # noqa: S608
        found = cursor.fetchone()
    if found != (rows, rows * (rows + 1) // 2):
        raise SystemExit(f"{table} has {found}, where {rows:,} rows belong.")


def _seconds_of_load(target: Target) -> float:
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select seconds from raw_bench._ingest_tables")
        return cursor.fetchone()[0]


if __name__ == "__main__":
    main()
