"""What building the transaction star costs: make bench-build ROWS=10000000.

Runs in `marquee scratch`, in three parts. (1) `dbt run` of every model of the star, from staging to
marts, against two yardsticks. `benchmarks/build.sql` is one script that makes the same tables by
hand; the rows of both are compared. The limit is a copy of the finished tables with their keys and
indexes, as a build has to write what it makes. (2) The step that 10,000 new rows cost, on this
history and on one a tenth as long, in turns; and with LOADS, what so many new rows cost in as many
loads, as a stream lands them, beside the same in one. (3) Six questions as dashboards ask them, on
the marts.

Rows come at the same pace in both histories: the full one has two years, the short one its last
73 days. A batch is one day's: 9,000 new transactions of it, 1,000 later versions of transactions
of the week before.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from statistics import median

import click
import pandas as pd

from ingestion import dbt_runner
from ingestion.sample.transactions import generate
from ingestion.sources import brands, tmdb, transactions
from ingestion.warehouse.access import load_target
from ingestion.warehouse.target import Target

SCRIPT = Path(__file__).with_suffix(".sql")
STAR = [
    "path:models/staging/transactions",
    "path:models/intermediate/transactions",
    "path:models/marts/transactions",
]
AROUND = ["+dim_brand", "path:seeds"]  # what the star's marts read besides transactions
LAST_DAY, DAYS = date(2025, 12, 31), 730
BATCH, LATER = 10_000, 1_000
FILE = 10_000_000  # lines of a file, so that the disk need not hold all of them
FILES_APART = 1_000  # seeds of files
SLOWEST = 5
LOADED = """
    create temporary table arriving as
    select
        transactions.*,
        row_number() over () as line,
        to_char(
            extract(epoch from now()) + %(into)s * row_number() over () / 1e6,
            'FM9999999999.000000'
        ) as load_id
    from (select * from raw_transactions.transactions order by random() limit %(rows)s)
        as transactions;

    insert into raw_transactions._dlt_loads (load_id, schema_name, status, inserted_at)
    select load_id, 'transactions', 0, max(clock_timestamp()) + max(line) * interval '1 microsecond'
    from arriving group by load_id;

    insert into raw_transactions.files
    select (
        jsonb_populate_record(
            null::raw_transactions.files,
            to_jsonb(files) || jsonb_build_object(
                '_dlt_load_id', landed.load_id, 'path', 'kafka://cluster/topic/0',
                'first_line', landed.first_line, 'last_line', landed.last_line,
                'lines_read', landed.lines, 'rows_landed', landed.lines, 'rows_rejected', 0,
                'checksum', md5(landed.load_id), 'is_replacement', false
            )
        )
    ).*
    from (
        select
            load_id, min(line) as first_line, max(line) as last_line, count(*) as lines
        from arriving group by load_id
    ) as landed
    cross join (select * from raw_transactions.files limit 1) as files;

    insert into raw_transactions.transactions
    select (
        jsonb_populate_record(
            null::raw_transactions.transactions,
            to_jsonb(arriving) - 'line' - 'load_id' || jsonb_build_object(
                '_dlt_load_id', load_id, 'transaction_id', gen_random_uuid(),
                '_file_checksum', md5(load_id), '_file_line', line
            )
        )
    ).*
    from arriving
"""
THREADS = 4  # of the example profile
MONTHS = [date(2025, month, 1) for month in range(11, 13)]
QUESTIONS = {
    "totals of a month by category": """
        select category_name, sum(transaction_count), sum(approved_count), sum(approved_amount)
        from marts.daily_transactions
        where date_day >= %(month)s and date_day < %(month)s + interval '1 month'
        group by category_name
    """,
    "daily series of a city, a quarter": """
        select date_day, sum(transaction_count), sum(approved_amount)
        from marts.daily_transactions
        where date_day >= %(month)s - interval '2 months'
            and date_day < %(month)s + interval '1 month' and city_name = %(city)s
        group by date_day order by date_day
    """,
    "city by category, approved, a month": """
        select city_name, category_name, sum(amount)
        from marts.daily_transactions
        where date_day >= %(month)s and date_day < %(month)s + interval '1 month'
            and transaction_status = 'APPROVED'
        group by city_name, category_name
    """,
    "top merchants of a month in a city": """
        select merchant_name, sum(amount) as amount, sum(transaction_count)
        from marts.daily_merchants
        where date_day >= %(month)s and date_day < %(month)s + interval '1 month'
            and city_name = %(city)s
        group by merchant_name order by amount desc limit 10
    """,
    "hours of a week by status": """
        select hour_of_day, transaction_status, sum(transaction_count)
        from marts.hourly_transactions
        where date_day >= %(month)s and date_day < %(month)s + interval '7 days'
        group by hour_of_day, transaction_status
    """,
    "the largest of a day in a city": """
        select transaction_id, merchant_name, amount
        from marts.fct_transactions
        join marts.dim_city using (city_key) join marts.dim_merchant using (merchant_key)
        where event_date = %(day)s and city_name = %(city)s
        order by amount desc limit 100
    """,
    "all time: status mix by year (not one of the six)": """
        select extract(year from date_day), transaction_status, sum(transaction_count)
        from marts.daily_transactions group by 1, 2
    """,
}


@click.command()
@click.option("--rows", default=1_000_000, help="Lines of the full history.")
@click.option("--rounds", default=1, help="Full builds by each way.")
@click.option("--batches", default=3, help="Batches of new rows; 0 leaves the step out.")
@click.option("--loads", default=0, help="Loads of one row each, in a step of their own.")
@click.option("--repeats", default=30, help="How often each question is asked.")
def main(rows: int, rounds: int, batches: int, loads: int, repeats: int) -> None:
    """Print build times and ratios, the cost of a step, and the times of queries."""
    dbt_runner.install_packages()
    full = load_target()
    prepare(full)
    short = replace(full, dbname="short")
    execute(replace(full, dbname="postgres"), f"create database short template {full.dbname}")
    land(short, rows // 10, DAYS // 10, seed=1)
    land(full, rows, DAYS, seed=2)

    seconds: dict[str, list[float]] = {"dbt run": [], "by hand": [], "copied": []}
    for _ in range(rounds):
        seconds["by hand"].append(by_hand(full))
        seconds["dbt run"].append(dbt(full, "--full-refresh"))
        seconds["copied"].append(copied(full))
    slowest = model_seconds()
    wall = {way: median(found) for way, found in seconds.items()}
    show(
        f"Full build of {rows:,} rows, median of {rounds}",
        {way: {"seconds": s, "to by hand": s / wall["by hand"], "to copied": s / wall["copied"]}
         for way, s in wall.items()},
    )  # fmt: skip
    show("Slowest models", {n: {"seconds": round(s, 1)} for n, s in slowest[:SLOWEST]})
    compare(full)
    execute(full, "drop schema hand cascade")

    if batches:
        dbt(short, "--full-refresh")
        for target in (full, short):  # as autovacuum does, which would fall into the first steps
            execute(target, "vacuum analyze")
        steps(full, short, batches)
    if loads:
        many_loads(full, loads)
    ask(full, repeats)


def prepare(target: Target) -> None:
    """Land films and brands of the sample, and build what the star reads of them."""
    brands.ingest_brands(None, target)
    brands.ingest_releases(None, target)
    tmdb.ingest(target)
    dbt_runner.dbt(
        "build", target, "--select", *AROUND, "--exclude", "test_type:data", label="Building"
    )


def land(target: Target, rows: int, days: int, seed: int) -> None:
    """Land a history that ends on the last day, a file of at most ``FILE`` lines at a time."""
    start = LAST_DAY - timedelta(days=days - 1)
    files = -(-rows // FILE)
    for number in range(files):
        first = start + timedelta(days=days * number // files)
        last = start + timedelta(days=days * (number + 1) // files - 1)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"history{seed}.jsonl"
            lines = rows * (number + 1) // files - rows * number // files
            generate(lines, seed + FILES_APART * number, file, start=first, end=last)
            transactions.ingest([file], target)
    execute(target, "vacuum analyze raw_transactions.transactions")  # as autovacuum does


def land_batch(targets: list[Target], number: int) -> None:
    """Land a day's rows; each history gets later versions of its own transactions."""
    day = LAST_DAY + timedelta(days=number + 1)
    for target in targets:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"batch{number}.jsonl"
            generate(BATCH - LATER, 100 + number, file, start=day, end=day)
            known = execute(
                target,
                "select distinct on (transaction_id)"
                " transaction_id, event_ts at time zone 'UTC', user_id, amount"
                " from raw_transactions.transactions where event_ts >= %s order by transaction_id",
                (day - timedelta(days=7),),
            )
            dice = random.Random(number)  # noqa: S311 - a benchmark's dice
            with file.open("a") as lines:
                for key, at, user, amount in dice.sample(known, LATER):
                    moment = at + timedelta(hours=3)
                    row = {"transaction_id": key, "event_ts": f"{moment.isoformat()}Z"}
                    row |= {"user_id": user, "amount": str(amount), "status": "REFUNDED"}
                    lines.write(json.dumps(row | {"city": "Paris", "currency": "EUR"}) + "\n")
            transactions.ingest([file], target)


# Building ----------------------------------------------------------------------------------------


def dbt(target: Target, *options: str) -> float:
    """Seconds that `dbt run` of the star takes, its start included."""
    began = time.monotonic()
    done = subprocess.run(
        [Path(sys.executable).with_name("dbt"), "--quiet", "run", *options, "--select", *STAR],
        env=os.environ | {"PGDATABASE": target.dbname},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return seconds


def model_seconds() -> list[tuple[str, float]]:
    """Seconds of each model in the last `dbt run`, the slowest first."""
    results = json.loads(
        (dbt_runner.target_path() / "run_results.json").read_text(encoding="utf-8")
    )
    found = {r["unique_id"].split(".")[-1]: r["execution_time"] for r in results["results"]}
    return sorted(found.items(), key=lambda item: -item[1])


def by_hand(target: Target) -> float:
    """Seconds that the script takes."""
    began = time.monotonic()
    execute(target, SCRIPT.read_text(encoding="utf-8"))
    return time.monotonic() - began


TABLES = """
    select n.nspname, c.relname, array(
        select pg_get_indexdef(indexrelid) from pg_index where indrelid = c.oid
    ), array(
        select attname from pg_attribute where attrelid = c.oid and attnum > 0 and attnotnull
    )
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind = 'r' and n.nspname in ('intermediate', 'marts') and c.relname = any(%s)
"""


def copied(target: Target) -> float:
    """Seconds that a copy of the tables of the last `dbt run` takes, as many at once as in dbt."""
    names = [name for name, _ in model_seconds()]
    copies = []
    for schema, table, indexes, not_null in execute(target, TABLES, (names,)):
        required = ", ".join(f"alter {column} set not null" for column in not_null)
        copies.append(
            [
                f"create table copied.{table} as table {schema}.{table}",
                *([f"alter table copied.{table} {required}"] if required else []),
                *(index.replace(f" ON {schema}.", " ON copied.") for index in indexes),
            ]
        )

    def copy(statements: list[str]) -> None:
        for statement in statements:
            execute(target, statement)

    execute(target, "create schema copied")
    began = time.monotonic()
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(copy, copies))
    seconds = time.monotonic() - began
    execute(target, "drop schema copied cascade")
    return seconds


def compare(target: Target) -> None:
    """Print for each table whether the two ways made the same rows; stop when they did not."""
    tables = execute(
        target,
        "select table_name, string_agg(column_name, ', ' order by column_name)"
        " from information_schema.columns where table_schema = 'marts' and table_name in"
        " (select tablename from pg_tables where schemaname = 'hand') group by 1 order by 1",
    )
    rows = {}
    for table, columns in tables:
        made = [
            execute(
                target,
                f"select count(*), sum(hashtextextended(cast(row({columns}) as text), 0))"
                f" from {schema}.{table}",
            )[0]
            for schema in ("marts", "hand")
        ]
        rows[table] = {"rows": f"{made[0][0]:,}", "the same": made[0] == made[1]}
    marts = execute(target, "select count(*) from pg_tables where schemaname = 'hand'")[0][0]
    show(f"Rows of both ways, {marts} tables", rows)
    if not all(row["the same"] for row in rows.values()):
        raise SystemExit("The two ways do not make the same rows.")


def steps(full: Target, short: Target, batches: int) -> None:
    """Print what a batch of new rows costs on each history."""
    walls: dict[str, list[float]] = {"full": [], "short": []}
    models: dict[str, dict[str, list[float]]] = {"full": {}, "short": {}}
    for number in range(batches):
        land_batch([full, short], number)
        for name, target in (("full", full), ("short", short)):
            walls[name].append(dbt(target))
            for model, seconds in model_seconds():
                models[name].setdefault(model, []).append(seconds)
    one = {n: {m: median(s) for m, s in found.items()} for n, found in models.items()}
    a, b = median(walls["full"]), median(walls["short"])
    sums = {name: sum(found.values()) for name, found in one.items()}
    show(
        f"Step of {BATCH:,} new rows, median of {batches}",
        {
            "dbt run, wall": {"full s": round(a, 2), "tenth s": round(b, 2), "ratio": a / b},
            "sum of its models": {
                "full s": round(sums["full"], 2),
                "tenth s": round(sums["short"], 2),
                "ratio": sums["full"] / sums["short"],
            },
            **{
                f"- {model}": {
                    "full s": round(seconds, 2),
                    "tenth s": round(one["short"][model], 2),
                    "ratio": seconds / one["short"][model],
                }
                for model, seconds in sorted(one["full"].items(), key=lambda item: -item[1])[:8]
            },
        },
    )


def many_loads(target: Target, loads: int) -> None:
    """Print what new rows cost in one load, and in a load each."""
    found = {}
    for name, into in (("in one load", 0), (f"in {loads:,} loads", 1)):
        execute(target, LOADED, {"rows": loads, "into": into})
        found[name] = {"seconds": round(dbt(target), 1)}
        for model, seconds in model_seconds()[:SLOWEST]:
            found[f"- {model}, {name}"] = {"seconds": round(seconds, 1)}
    show(f"Step of {loads:,} new rows", found)


def ask(target: Target, repeats: int) -> None:
    """Print how long the questions take, each with other filters every time."""
    execute(target, "vacuum analyze")
    dice = random.Random(3)  # noqa: S311 - a benchmark's dice
    rows = {}
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        for name, question in QUESTIONS.items():
            found = []
            for _ in range(repeats):
                values = {
                    "month": dice.choice(MONTHS),
                    "day": LAST_DAY - timedelta(days=dice.randrange(60)),
                    "city": dice.choice(["Paris", "Lyon", "Marseille", "Toulouse", "Nice"]),
                }
                began = time.monotonic()
                cursor.execute(question, values)
                cursor.fetchall()
                found.append(1000 * (time.monotonic() - began))
            found.sort()
            rows[name] = {
                "median ms": round(median(found), 1),
                "p95 ms": round(found[int(0.95 * (repeats - 1))], 1),
            }
    show(f"Questions, {repeats} times each", rows)


def execute(target: Target, statement: str, values: tuple | None = None) -> list[tuple]:
    """Run SQL, each statement by itself; returns the rows of the last one."""
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def show(title: str, rows: dict) -> None:
    """Print a table below a heading."""
    click.echo(f"\n{title}\n\n{pd.DataFrame.from_dict(rows, orient='index').round(2).to_string()}")


if __name__ == "__main__":
    main()
