"""Transactions that dbt has marked: they have landed, but break a rule and are in no fact.

They are corrected by a seed or a variable, or by a corrected file, and the next build; not by
``marquee rejects replay``, which is for lines that could not be read (``ingestion.rejects``). What
is marked is what the last build says; the rules and their remedies are the seed
``transaction_rules``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING

from ingestion.warehouse.paths import PROJECT_DIR, dbt_command
from ingestion.warehouse.target import marts_schema, schema_name

if TYPE_CHECKING:
    from ingestion.warehouse.target import Target

FEW = 4  # values of a reason that are named
# A mart of an earlier release may lack the value.
MARKED = """
    select
        reason_code, coalesce(to_jsonb(marked) ->> 'broken_value', '') as broken_value, file_name,
        file_line, transaction_id, event_at, amount, currency_code, loaded_at
    from {marts}.rejected_transactions as marked
    where rejection_stage = 'marked' and (%(reason)s is null or reason_code = %(reason)s)
"""
BY_REASON = """
    with marked as ({marked}),
    valued as (
        select reason_code, broken_value, count(*) as row_count
        from marked group by reason_code, broken_value
    ),
    ranked as (
        select *, row_number() over (
            partition by reason_code order by row_count desc, broken_value
        ) as place
        from valued
    ),
    latest as (
        select distinct on (reason_code) reason_code, file_name, file_line
        from marked order by reason_code, loaded_at desc, file_name, file_line
    )
    select
        reason_code, sum(row_count)::bigint, ({landed}),
        array_agg(left(broken_value, 60) order by place) filter (where place <= {few}),
        count(*), max(file_name), max(file_line)
    from ranked inner join latest using (reason_code)
    group by reason_code order by 2 desc, 1
"""
LANDED = """
    select coalesce(sum(files.rows_landed_count), 0)::bigint
    from {staging}.stg_transactions__files as files
    inner join {staging}.stg_transactions__loads as loads using (dlt_load_id)
    where loads.is_finished and not exists (
        select from {intermediate}.int_transaction_files__replaced as replaced
        where replaced.dlt_load_id = files.dlt_load_id
        and replaced.file_checksum = files.file_checksum
    )
"""


@dataclass(frozen=True)
class Broken:
    """A rule, and the rows that break it.

    Attributes:
        reason_code: what rows are marked with.
        rows: how many are.
        landed: how many rows have landed in all, but those of files that were replaced.
        values: what breaks it, commonest first; the first few.
        value_count: how many different values there are.
        file, line: one of the latest rows.
    """

    reason_code: str
    rows: int
    landed: int
    values: list[str]
    value_count: int
    file: str
    line: int

    @property
    def share(self) -> str:
        """Of the rows that landed, such as ``1.2 %``."""
        part = 100 * self.rows / self.landed if self.landed else 0
        return f"{part:.1f} %" if part >= 0.1 else f"{max(part, 0.01):.2f} %"

    @property
    def examples(self) -> str:
        """Values that break the rule, such as ``SUCCESS, FAILED and 3 more``."""
        more = self.value_count - len(self.values)
        return ", ".join(self.values) + (f" and {more:,} more" if more else "")

    @property
    def sentence(self) -> str:
        """How many, which, and what to do."""
        return (
            f"{self.rows:,} of {self.landed:,} transactions ({self.share}) are marked"
            f" {self.reason_code}: {self.examples}. {remedy(self.reason_code)}"
        )


@dataclass(frozen=True)
class MarkedRow:
    """One row that breaks a rule, as the mart has it."""

    reason_code: str
    broken_value: str
    file: str
    line: int
    transaction_id: str
    event_at: datetime | None
    amount: Decimal
    currency_code: str | None


def by_reason(target: Target, reason: str | None = None) -> list[Broken]:
    """The rules that rows break, commonest first; none before the first build."""
    landed = LANDED.format(
        staging=schema_name("staging", target), intermediate=schema_name("intermediate", target)
    )
    found = BY_REASON.format(marked="{marked}", landed=landed, few=FEW)
    return [Broken(*row) for row in _rows(target, found, reason)]


def rows(
    target: Target, reason: str | None = None, limit: int | None = None
) -> Iterator[MarkedRow]:
    """The marked rows in the order in which they landed, few in memory at a time."""
    columns = (
        "reason_code, broken_value, file_name, file_line, transaction_id, event_at, amount,"
        " currency_code"
    )
    query = (
        f"with marked as ({{marked}}) select {columns} from marked"  # noqa: S608
        f" order by loaded_at, file_name, file_line limit {limit or 'all'}"
    )
    return (MarkedRow(*row) for row in _rows(target, query, reason))


@cache
def remedies() -> dict[str, str]:
    """What to do about each reason, by the seed transaction_rules."""
    path = PROJECT_DIR / "seeds" / "transaction_rules.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return {row["reason_code"]: row["remedy"] for row in csv.DictReader(file)}


def remedy(reason: str) -> str:
    what = remedies().get(reason, "Change the rule that it breaks")
    return f"{what}, then: {dbt_command()} build"


def _rows(target: Target, query: str, reason: str | None) -> Iterator[tuple]:
    marts = marts_schema(target)
    with closing(target.connect()) as connection:
        with connection.cursor() as cursor:
            cursor.execute("select to_regclass(%s)", (f"{marts}.rejected_transactions",))
            if cursor.fetchone() == (None,):
                return
        with connection.cursor(name="marked") as cursor:
            cursor.execute(query.format(marked=MARKED.format(marts=marts)), {"reason": reason})
            yield from cursor
