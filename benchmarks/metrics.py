"""A metric over an aggregate beside SQL by hand, in one run, and how long its SQL takes to write.

Runs in ``marquee scratch``: make bench-metrics ROWS=1000000. The aggregate is made by plain SQL.
Rounds are interleaved, and each figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from ingestion.dbt_runner import target_path
from ingestion.warehouse.access import load_target
from ingestion.warehouse.paths import PROJECT_DIR
from serving.metrics import Metrics

sys.path.insert(0, str(PROJECT_DIR))
from benchmarks.running import execute

ROUNDS = 15
ROWS = """
    create table marts.daily_transactions as
    select date '2020-01-01' + cast(n % 2000 as integer) as date_day, 'City ' || n % 7 as city_name,
        case when n % 10 = 0 then 'USD' else 'EUR' end as currency_code,
        cast(n % 700 as numeric(20, 4)) as amount
    from generate_series(1, {rows}) as n
    order by date_day
"""
BY_HAND = """
    select date_day, currency_code, sum(amount) from marts.daily_transactions
    where date_day >= date '2021-01-01' and date_day < date '2022-01-01'
    group by 1, 2 order by 1, 2
"""


def main(rows: int) -> None:
    """Print milliseconds of both ways to ask, their ratio, and milliseconds of a compilation."""
    subprocess.run([Path(sys.executable).with_name("dbt"), "parse", "--quiet"], check=True)
    target = load_target()
    execute(
        target,
        "create schema if not exists marts",
        ROWS.format(rows=rows),
        "create index on marts.daily_transactions (date_day)",
        "vacuum analyze marts.daily_transactions",
    )
    place = target_path()
    metrics = Metrics.load(place / "semantic_manifest.json", place / "manifest.json")
    metrics.prepare()
    request = {"group_by": ["day", "currency_code"], "since": "2021-01-01", "until": "2021-12-31"}
    compiled = []
    for limit in range(ROUNDS):  # other columns to order by are other shapes: none is known
        columns = ["day", "currency_code", "amount"][: limit % 3 + 1]
        order = [f"{'-' if limit >> n & 1 else ''}{name}" for n, name in enumerate(columns)]
        began = time.process_time()
        query = metrics.compile(["amount"], order=order, **request)
        compiled.append(1_000 * (time.process_time() - began))
    query = metrics.compile(["amount"], **request)
    began = time.process_time()
    metrics.compile(["amount"], **request)
    known = 1_000 * (time.process_time() - began)
    ways: dict[str, tuple[str, Any]] = {"by hand": (BY_HAND, None), "metric": query.for_psycopg()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers = {}
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("set timezone to 'UTC'")
        for _ in range(ROUNDS):
            for name, (sql, parameters) in ways.items():
                began = time.perf_counter()
                cursor.execute(sql, parameters)
                answers[name] = cursor.fetchall()
                seconds[name].append(time.perf_counter() - began)
    if answers["by hand"] != answers["metric"]:
        sys.exit("The metric and the SQL by hand have different answers.")
    hand, metric = (1_000 * statistics.median(each) for each in seconds.values())
    print(f"{rows:,} rows, {len(answers['metric']):,} rows in the answer, {ROUNDS} rounds")
    print(f"by hand {hand:.1f} ms, metric {metric:.1f} ms, ratio {metric / hand:.2f} (at most 1.3)")
    print(
        f"compiled in {statistics.median(compiled):.1f} ms of processor time (at most 25),"
        f" the first in {compiled[0]:.1f}; known in {known:.2f} ms"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    main(parser.parse_args().rows)
