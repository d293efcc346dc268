"""Which kind of key a fact should have: build time, size and join time of each kind.

Runs in `marquee scratch`: make bench-keys ROWS=10000000. The fact is made by plain SQL, so that
only the keys differ. Rounds are interleaved, and each figure is the median of its rounds.
"""

from __future__ import annotations

import time
from contextlib import closing
from statistics import median

import click
import pandas as pd

from ingestion.warehouse.access import load_target

NAMES = {"merchant": 200, "category": 20, "city": 300, "payment_method": 4, "status": 5}
ROWS = """
    create table landed as
    select
        gen_random_uuid() as transaction_id,
        (random() * 1000000)::bigint as user_id,
        (random() * 75000)::int / 100.0 as amount,
        timestamp '2024-01-01' + random() * interval '730 days' as event_at,
        {names}
    from generate_series(1, {rows})
"""
NAME = "'{name} ' || (random() * {count})::int as {name}"
MD5 = "md5(coalesce(cast({name} as text), '_dbt_utils_surrogate_key_null_'))"
HASHED = {"md5 text": (MD5, "text"), "md5 as uuid": (f"cast({MD5} as uuid)", "uuid")}
NUMBERED = ("cast(row_number() over (order by {name}) as integer)", "integer")
# of the seconds that a kind takes, those of queries on the fact
QUERIES = {
    "one join": """
        select city, count(*), sum(amount) from {fact}
        join {dim}_city using (city_key) group by city
    """,
    "five joins": """
        select category, status, count(*), sum(amount) from {fact}
        join {dim}_city using (city_key) join {dim}_category using (category_key)
        join {dim}_merchant using (merchant_key) join {dim}_status using (status_key)
        join {dim}_payment_method using (payment_method_key)
        group by category, status
    """,
    "one city": """
        select category, count(*), sum(amount) from {fact}
        join {dim}_city using (city_key) join {dim}_category using (category_key)
        where city = 'city 7' group by category
    """,
}


@click.command()
@click.option("--rows", default=1_000_000)
@click.option("--rounds", default=3)
def main(rows: int, rounds: int) -> None:
    """Print build seconds, megabytes and query seconds of facts with each kind of key."""
    with closing(load_target().connect()) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            made = ", ".join(NAME.format(name=name, count=n) for name, n in NAMES.items())
            cursor.execute(ROWS.format(rows=rows, names=made))
            cursor.execute("vacuum analyze landed")
            kinds = {
                "md5 text, hashed row by row": (HASHED["md5 text"], False),
                "md5 as uuid, hashed row by row": (HASHED["md5 as uuid"], False),
                "md5 text, looked up by name": (HASHED["md5 text"], True),
                "md5 as uuid, looked up by name": (HASHED["md5 as uuid"], True),
                "integer, looked up by name": (NUMBERED, True),
            }
            figures = {name: [] for name in kinds}
            for _ in range(rounds):
                for name, (key, is_looked_up) in kinds.items():
                    figures[name].append(_measure(cursor, key, is_looked_up))
    medians = pd.DataFrame(
        {
            name: {figure: median(one[figure] for one in found) for figure in found[0]}
            for name, found in figures.items()
        }
    ).T
    today = medians.iloc[0]
    click.echo(f"{rows:,} rows, median of {rounds} rounds\n")
    click.echo(medians.round(2).to_string())
    click.echo(f"\nAs a share of: {today.name}\n")
    click.echo((medians / today).round(2).to_string())


def _measure(cursor, key: tuple[str, str], is_looked_up: bool) -> dict[str, float]:
    """Make dims and a fact with one kind of key and ask it, each thing once."""
    made, figures = key[0], {}
    for name in NAMES:
        cursor.execute(f"drop table if exists dim_{name}")
        cursor.execute(
            f"create table dim_{name} as select {made.format(name=name)} as {name}_key, {name}"
            f" from (select distinct {name} from landed) as names"
        )
        cursor.execute(f"alter table dim_{name} add primary key ({name}_key)")
        cursor.execute(f"analyze dim_{name}")
    keys = ", ".join(
        f"dim_{name}.{name}_key" if is_looked_up else f"{made.format(name=name)} as {name}_key"
        for name in NAMES
    )
    joins = " ".join(f"left join dim_{name} using ({name})" for name in NAMES)
    cursor.execute("drop table if exists fact")
    figures["build s"] = _seconds(
        cursor,
        f"create table fact as select transaction_id, user_id, amount, event_at, {keys}"
        f" from landed {joins if is_looked_up else ''}",
    )
    cursor.execute("vacuum analyze fact")
    cursor.execute("select pg_total_relation_size('fact') / 1e6")
    figures["MB"] = float(cursor.fetchone()[0])
    figures["index s"] = _seconds(cursor, "create index on fact (city_key, category_key)")
    cursor.execute("select pg_indexes_size('fact') / 1e6")
    figures["index MB"] = float(cursor.fetchone()[0])
    cursor.execute("drop index fact_city_key_category_key_idx")
    for name, query in QUERIES.items():
        figures[f"{name} s"] = _seconds(cursor, query.format(fact="fact", dim="dim"))
    return figures


def _seconds(cursor, statement: str) -> float:
    started = time.monotonic()
    cursor.execute(statement)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
