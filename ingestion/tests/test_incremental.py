"""For every incremental model and any order of arrival: incremental result = full-refresh result.

Batches are made up at random and put into the raw tables as loads leave them: late, repeated and
status-changing rows, rows that break a rule, unread lines, corrected lines, grown and replaced
files, loads that finish out of order. ``MARQUEE_EQUALITY_ROUNDS`` and ``MARQUEE_EQUALITY_SEED`` ask
for more and for others (``make equality``); a failure says which seed it was.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import sql
from psycopg2.extras import execute_values

from ingestion.tests.built import Built
from ingestion.tests.conftest import execute
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

ROUNDS = int(os.environ.get("MARQUEE_EQUALITY_ROUNDS") or 2)
SEED = int(os.environ.get("MARQUEE_EQUALITY_SEED") or 11)
BATCHES = 3  # incremental runs in a round
START = datetime(2025, 3, 1, tzinfo=timezone.utc)
SOURCE = "source.marquee.transactions."
CHOICES = {
    "merchant": ["Amazon", "Uber", "Fnac", "Disney Store", "Unknown", "(unknown)", "\u00a0", None],
    "category": ["grocery", "travel", "Travel", None],
    "city": ["Paris", "Lyon", "  Nice\u200b", "_dbt_utils_surrogate_key_null_", None],
    "status": ["APPROVED", "approved", "PENDING", "DECLINED", "REFUNDED", "LOST", None],
    "payment_method": ["card", "Wallet", None],
    "currency": ["EUR", "EUR", "usd", "JPY\r", "QQQ", None],
}


@dataclass
class Arrivals:
    """Makes up loads. Everything is drawn from ``dice``, so that a seed repeats itself."""

    target: Target
    dice: random.Random
    clock: datetime = START + timedelta(days=40)
    known: list[str] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)  # path to lines read so far
    unread: list[dict[str, Any]] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    def batch(self) -> str:
        """Put up to three loads in, finish some of those under way; returns what was done."""
        said = []
        for _ in range(self.dice.randint(0, 3)):
            said.append(self.load())
        for load_id in self.dice.sample(self.unfinished, len(self.unfinished)):
            if self.dice.random() < 0.6:
                self.unfinished.remove(load_id)
                self._finish(load_id)
                said.append(f"finished {load_id}")
        return ", ".join(said) or "nothing"

    def lone_row(self, *, is_replacement: bool = False) -> str:
        """A file of one transaction on a day that no other has; then another one in its place."""
        load_id = f"{self._now().timestamp():.4f}"
        of_file = {
            "_file_name": "lone.jsonl",
            "_file_checksum": f"{self.dice.getrandbits(256):064x}",
            "_dlt_load_id": load_id,
        }
        self._insert("transactions", self._row() | of_file | {
            "transaction_id": str(uuid.UUID(int=is_replacement)), "amount": 5, "currency": "EUR",
            "event_ts": START - timedelta(days=500 + is_replacement), "status": "APPROVED",
            "_file_line": 1,
        })  # fmt: skip
        self._ledger(of_file, "/files/lone.jsonl", 1, 1, 0, is_replacement=is_replacement)
        self._finish(load_id)
        return f"lone row{', replaced' if is_replacement else ''}"

    def load(self) -> str:
        load_id = f"{self._now().timestamp():.4f}"
        self.unfinished.append(load_id)
        said = [f"load {load_id}"]
        places = [*self.lines, *(f"/files/{len(self.lines) + n}.jsonl" for n in (0, 1))]
        for path in self.dice.sample(places, self.dice.randint(1, 2)):
            said.append(self._file(load_id, path))
        if self.unread and self.dice.random() < 0.4:
            said.append(self._replay(load_id))
        return " ".join(said)

    def _file(self, load_id: str, path: str) -> str:
        """A file of a new place, or of a known one: grown, or another version of the whole."""
        is_replacement = path in self.lines and self.dice.random() < 0.5
        first = 1 if is_replacement else self.lines.get(path, 0) + 1
        rows = [self._row() for _ in range(self.dice.choice([0, 1, 5, 30]))]
        rows += self.dice.sample(rows, len(rows) // 5)  # exact repeats
        unread = self.dice.choice([0, 1, 2])
        lines = list(range(first, first + len(rows) + unread))
        self.lines[path] = first + len(lines) - 1
        self.dice.shuffle(lines)
        of_file = {
            "_file_name": Path(path).name,
            "_file_checksum": f"{self.dice.getrandbits(256):064x}",
            "_dlt_load_id": load_id,
        }
        for row, line in zip(rows, lines, strict=False):
            self._insert("transactions", row | of_file | {"_file_line": line})
        for line in lines[len(rows) :]:
            reason = {"raw_text": "?", "reason_code": "not_json", "reason": "not JSON"}
            self._insert("rejects", reason | of_file | {"_file_line": line})
            self.unread.append(of_file | {"path": path, "_file_line": line})
        self._ledger(of_file, path, first, len(rows), unread, is_replacement=is_replacement)
        return f"{path} from {first}: {len(rows)} rows{', whole' if is_replacement else ''}"

    def _replay(self, load_id: str) -> str:
        """One unread line lands corrected."""
        given = self.unread.pop(self.dice.randrange(len(self.unread)))
        path, line, earlier = given.pop("path"), given.pop("_file_line"), given["_dlt_load_id"]
        if earlier == load_id:
            return "nothing corrected"
        of_file = given | {"_dlt_load_id": load_id}
        self._insert("transactions", self._row() | of_file | {"_file_line": line})
        self._ledger(of_file, path, line, 1, 0, is_replacement=False, replay_of=earlier)
        return f"line {line} of {path} corrected"

    def _ledger(self, of_file: dict, path: str, first: int, rows: int, unread: int, **more) -> None:
        self._insert("files", of_file | more | {
            "path": path, "bytes": 1, "first_line": first, "last_line": first + rows + unread - 1,
            "lines_read": rows + unread, "rows_landed": rows, "rows_rejected": unread,
            "seconds": 0.1, "landed_at": self.clock,
        })  # fmt: skip

    def _row(self) -> dict[str, Any]:
        """New or known, at few moments, so that ties happen; now and then on a day of its own."""
        if not self.known or self.dice.random() < 0.5:
            self.known.append(str(uuid.UUID(int=self.dice.getrandbits(128))))
        moment = timedelta(days=self.dice.randint(0, 9), hours=self.dice.choice([0, 23]))
        amount = self.dice.choice([-5, 0, 19.99, 20, 250, 1_000_000, self.dice.randint(1, 600)])
        if self.dice.random() < 0.1:
            moment = timedelta(days=-self.dice.randint(1, 300))
        rare = self.dice.random() < 0.02
        drawn = {name: self.dice.choice(values) for name, values in CHOICES.items()}
        if self.dice.random() < 0.1:
            drawn["merchant"] = f"Shop {self.dice.randint(1, 300)}"
        return {
            "transaction_id": self.dice.choice(self.known[-60:]),
            "event_ts": START + (timedelta(days=400) if rare else moment),
            "user_id": self.dice.randint(1, 9),
            "amount": amount,
            **drawn,
        }

    def _finish(self, load_id: str) -> None:
        self._insert("_dlt_loads", {
            "load_id": load_id, "schema_name": "transactions", "status": 0,
            "inserted_at": self._now(), "schema_version_hash": "-",
        })  # fmt: skip

    def _now(self) -> datetime:
        self.clock += timedelta(seconds=self.dice.randint(1, 9_000))
        return self.clock

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        statement = sql.SQL("insert into raw_transactions.{} ({}) values %s").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, row))
        )
        with closing(self.target.connect()) as connection, connection, connection.cursor() as cur:
            execute_values(cur, statement, [tuple(row.values())])


class Models:
    """The incremental models that the manifest lists, built by dbt in this process."""

    def __init__(self) -> None:
        from dbt.cli.main import dbtRunner

        self._runner = dbtRunner()
        parsed = self._runner.invoke(["--quiet", "parse"])
        assert parsed.success, parsed.exception
        manifest = parsed.result
        self._runner = dbtRunner(manifest=manifest)
        found = [n for n in manifest.nodes.values() if n.config.materialized == "incremental"]
        self.tables = {node.unique_id: f"{node.schema}.{node.name}" for node in found}

        above = {one: _reach(one, manifest.parent_map) for one in self.tables}
        grows = {  # the others are filled anew by each step
            node.unique_id
            for node in found
            if not any("delete_all_before_step" in hook.sql for hook in node.config.pre_hook)
        }
        self.others = [n for n in grows if not any(x.startswith(SOURCE) for x in above[n])]
        below = set().union(*(
            _reach(one, manifest.child_map) for one in manifest.sources if one.startswith(SOURCE)
        ))  # fmt: skip
        wanted = below & {*self.tables, *set().union(*above.values())}
        self.names = sorted(
            node.name
            for node in map(manifest.nodes.get, wanted)
            if node and node.resource_type == "model"
        )

    def run(self, *options: str) -> None:
        done = self._runner.invoke(["--quiet", "run", *options, "--select", *self.names])
        failed = [f"{r.node.name}: {r.message}" for r in done.result or [] if r.status == "error"]
        assert done.success, (done.exception, failed)


def _reach(start: str, edges: dict[str, list[str]]) -> set[str]:
    """What can be reached along the edges."""
    seen, ahead = set(), [start]
    while ahead:
        for one in edges.get(ahead.pop(), []):
            if one not in seen:
                seen.add(one)
                ahead.append(one)
    return seen


@pytest.fixture
def warehouse(
    built: Built, target: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Built]:
    """A copy of the built warehouse without a transaction; dbt in this process points at it."""
    name, template = sql.Identifier(f"test_{uuid.uuid4().hex[:12]}"), built.target.dbname
    create = sql.SQL("create database {} template {}").format(name, sql.Identifier(template))
    execute(target, create)
    copy = Built(replace(target, dbname=name.string), tmp_path)
    copy.write_profile()
    monkeypatch.setenv("DBT_PROFILES_DIR", str(copy.folder))
    monkeypatch.setenv("DBT_TARGET_PATH", str(copy.target_path))
    monkeypatch.setenv("DBT_LOG_PATH", str(copy.folder / "logs"))
    monkeypatch.chdir(PROJECT_DIR)
    tables = ("transactions", "rejects", "files", "_dlt_loads")
    copy.execute("truncate " + ", ".join(f"raw_transactions.{table}" for table in tables))
    try:
        yield copy
    finally:
        execute(target, sql.SQL("drop database {} with (force)").format(name))


def test_incremental_equals_full_refresh(warehouse: Built) -> None:
    models = Models()
    assert models.tables
    assert not models.others, "no batches are made for the sources of these: add them here"
    models.run("--full-refresh")
    arrivals = Arrivals(warehouse.target, random.Random(SEED))
    history = []
    for is_replacement in (False, True):
        history.append(arrivals.lone_row(is_replacement=is_replacement))
        models.run()
    rows = 0
    for number in range(ROUNDS):
        for _ in range(BATCHES):
            history.append(arrivals.batch())
            models.run()
        for table in models.tables.values():
            warehouse.execute(
                f"create schema if not exists kept; drop table if exists kept.{_last(table)};"
                f" create table kept.{_last(table)} as table {table}"
            )
        models.run("--full-refresh")
        for table in models.tables.values():
            kept = f"kept.{_last(table)}"
            for here, there, what in (
                (kept, table, "only incremental"),
                (table, kept, "only full"),
            ):
                differing = warehouse.rows(f"(table {here} except all table {there}) limit 3")
                assert not differing, (table, what, differing, SEED, number, history)
            rows += warehouse.one(f"select count(*) from {table}")
    assert rows, "the batches had not one row"


def _last(table: str) -> str:
    return table.rsplit(".", maxsplit=1)[-1]
