"""What a warehouse of so many transactions needs: make bench-capacity ROWS=1000000.

Lands and builds made-up transactions in two throw-away servers, of ROWS and of a fifth of that,
tests included. What differs between the two is what a row costs; the rest is what an empty
warehouse has. From both, sizes of larger ones are computed, and said to be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from ingestion.warehouse.access import load_target

BIN = Path(sys.executable).parent
INSIDE = "MARQUEE_CAPACITY_INSIDE"
FILES = {"10 GB": 10e9, "100 GB": 100e9, "1 TB": 1e12}
SIZES = """
    select nspname, sum(pg_total_relation_size(pg_class.oid))::bigint as bytes
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where relkind in ('r', 'm') and nspname not like 'pg%' and nspname <> 'information_schema'
    group by nspname order by bytes desc
"""
ACTIVITY = """
    select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint, temp_bytes
    from pg_stat_database where datname = current_database()
"""


def ask(query: str) -> list[tuple]:
    with closing(load_target().connect()) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def step(found: dict[str, Any], name: str, *command: str | Path) -> None:
    """Run a program of Marquee's; note its seconds, its memory, and the WAL and temporary files."""
    wal, temporary = ask(ACTIVITY)[0]
    started = time.monotonic()
    process = subprocess.Popen([BIN / "marquee", *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)  # its peak is at least this process's own
    if status:
        raise SystemExit(f"{name} failed")
    found[f"{name}, s"] = time.monotonic() - started
    found[f"{name}, memory of the program, MB"] = usage.ru_maxrss / 1024
    time.sleep(1)  # the statistics of sessions that have ended
    after = ask(ACTIVITY)[0]
    found[f"{name}, WAL, bytes"] = after[0] - wal
    found[f"{name}, temporary files, bytes"] = after[1] - temporary


def measure(rows: int) -> dict[str, Any]:
    """Land and build so many rows; everything in bytes unless it is called otherwise."""
    found: dict[str, Any] = {"rows": rows}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transactions.jsonl"
        make = ["generate", "transactions", "--rows", str(rows), "--out", path]
        subprocess.run([BIN / "marquee", *make], check=True, stdout=subprocess.DEVNULL)
        found["file, bytes"] = path.stat().st_size
        subprocess.run([BIN / "marquee", "deps"], check=True, stdout=subprocess.DEVNULL)
        for source in ("brands", "releases", "tmdb"):
            subprocess.run(
                [BIN / "marquee", "ingest", source], check=True, stdout=subprocess.DEVNULL
            )
        step(found, "landing", "ingest", "transactions", path)
        step(found, "first build", "dbt", "--quiet", "build")
        step(found, "second build, nothing new", "dbt", "--quiet", "build")
        for schema, size in ask(SIZES):
            found[f"schema {schema}, bytes"] = size
        found["database, bytes"] = ask("select pg_database_size(current_database())")[0][0]
        step(found, "dump", "db", "backup", Path(folder) / "backup")
        files = (Path(folder) / "backup").rglob("*")
        found["dump, bytes"] = sum(file.stat().st_size for file in files if file.is_file())
    return found


def apart(rows: int) -> dict[str, Any]:
    done = subprocess.run(
        [BIN / "marquee", "scratch", sys.executable, __file__, "--rows", str(rows)],
        env=os.environ | {INSIDE: "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


@click.command()
@click.option("--rows", default=1_000_000, show_default=True)
def main(rows: int) -> None:
    """Print what was measured, what that is per row, and what follows for larger files."""
    if INSIDE in os.environ:
        print(json.dumps(measure(rows)))
        return
    small, large = apart(rows // 5), apart(rows)
    more = large["rows"] - small["rows"]
    print(f"| | {small['rows']:,} rows | {large['rows']:,} rows | a million rows more |")
    print("|---|---:|---:|---:|")
    for name, value in large.items():
        if name == "rows":
            continue
        unit = 1e6 if name.endswith("bytes") else 1
        before = small.get(name, 0)
        numbers = (before / unit, value / unit, (value - before) / more * 1e6 / unit)
        label = name.replace("bytes", "MB")
        print(f"| {label} | " + " | ".join(f"{number:,.1f}" for number in numbers) + " |")
    print("\nComputed, not measured: the same rows in larger files.\n")
    print("| file | rows, million | database, GB | WAL of landing and first build, GB | dump, GB |")
    print("|---|---:|---:|---:|---:|")
    per_row = {name: (large[name] - small[name]) / more for name in large if name in small}
    wal = per_row["landing, WAL, bytes"] + per_row["first build, WAL, bytes"]
    for name, size in FILES.items():
        count = size / per_row["file, bytes"]
        sizes = [per_row["database, bytes"], wal, per_row["dump, bytes"]]
        needed = " | ".join(f"{count * each / 1e9:,.0f}" for each in sizes)
        print(f"| {name} | {count / 1e6:,.0f} | {needed} |")


if __name__ == "__main__":
    main()
