"""Rejects: what counts as open, out into a file, corrected, and back with their lineage."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import ingestion.pipeline
from ingestion.cli import marquee
from ingestion.errors import UserError
from ingestion.pipeline import make_pipeline
from ingestion.rejects import open_rejects
from ingestion.sources.brands import ingest_brands
from ingestion.sources.transactions import contract
from ingestion.sources.transactions.landing import replay
from ingestion.tests.built import Built
from ingestion.warehouse.target import Target


def line(user: int, **changes) -> str:
    row = {
        "transaction_id": f"0b9f3c1e-5a4d-4c3b-9f2e-{user:012}",
        "event_ts": "2024-03-01T12:00:00Z",
        "user_id": user,
        "amount": 12.5,
    }
    return json.dumps(row | changes)


@pytest.fixture
def run(database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run ``marquee`` in this process; returns what it printed."""
    Built(database, tmp_path).write_profile()
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))
    monkeypatch.setattr(ingestion.pipeline, "STATE_DIR", tmp_path / "state")

    def command(*args, code: int = 0) -> str:
        done = CliRunner().invoke(marquee, [str(arg) for arg in args])
        assert done.exit_code == code, done.output
        return done.output

    return command


@pytest.fixture
def query(database: Target) -> Callable[..., list[tuple]]:
    def rows(text: str) -> list[tuple]:
        with (
            closing(database.connect()) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("set search_path to raw_transactions")
            cursor.execute(text)
            return cursor.fetchall() if cursor.description else []

    return rows


@pytest.fixture
def balanced(query) -> Callable[[], None]:
    """Checks that the ledger and the raw tables agree."""

    def check() -> None:
        assert query("select * from files where lines_read <> rows_landed + rows_rejected") == []
        for table, count in [("transactions", "rows_landed"), ("rejects", "rows_rejected")]:
            assert (
                query(
                    f"select _dlt_load_id, _file_checksum, count(*) from {table} group by 1, 2"
                    f" except select _dlt_load_id, _file_checksum, {count} from files"
                )
                == []
            )
        assert query("select sum(rows_landed) from files") == query(
            "select count(*) from transactions"
        )

    return check


def correct(file: Path, *changes: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in changes:
        assert text.count(old) == 1, text
        text = text.replace(old, new)
    file.write_text(text)


def test_rejects_are_listed_shown_exported_mended_and_replayed(run, query, balanced, tmp_path):
    first, second, out = tmp_path / "a.jsonl", tmp_path / "b.csv", tmp_path / "correct.txt"
    texts = [line(1), line(2, amount="12.50 EUR"), line(3), line(4)[:60], line(5, user_id=5.5)]
    first.write_text("\n".join([*texts, line(6)]) + "\n")
    head = "transaction_id;event_ts;user_id;amount;note"
    rows = [f"0b9f3c1e-5a4d-4c3b-9f2e-{n:012};2024-03-01T12:00:00Z;{n};1.25;n" for n in (7, 8, 9)]
    rows[1] = rows[1].replace("1.25;n", '1:25;"two\nlines"')
    second.write_text("\n".join([head, *rows, ""]))
    run("ingest", "transactions", first, second)

    assert run("rejects").splitlines() == [
        f"source        reason       rejects  latest file{' ' * (len(str(first)) - 11)}  e.g. line",
        f"transactions  bad_amount         2  {first}          2",
        f"transactions  bad_user_id        1  {first}          5",
        f"transactions  not_json           1  {first}          4",
    ]
    shown = run("rejects", "show", "--reason", "bad_amount").splitlines()
    assert shown[0].startswith(f"{first}:2  bad_amount: amount is not a number")
    assert shown[1] == f"    {texts[1]}"
    assert shown[2].startswith(f"{second}:3  bad_amount")
    assert shown[3].endswith('1:25;"two\\nlines"')
    assert run("rejects", "show", "--limit", "1").splitlines()[2] == "There are more: --limit 10"
    assert run("rejects", "show", "--source", "brands") == "There are no open rejects.\n"

    assert "4 rejects are in" in run("rejects", "export", out)
    checksums = dict(query("select _file_name, left(_file_checksum, 12) from files"))
    exported = [text for text in out.read_text().splitlines() if not text.startswith("#")]
    assert exported == [
        f"{checksums[str(first)]}:2:bad_amount\t{texts[1]}",
        f"{checksums[str(first)]}:4:not_json\t{texts[3]}",
        f"{checksums[str(first)]}:5:bad_user_id\t{texts[4]}",
        *f"{checksums[str(second)]}:3:bad_amount\t{rows[1]}".splitlines(),
    ]
    correct(
        out, ("12.50 EUR", "12.50"), ("1:25", "1.25"), (": 5.5", ": 6.5"), (exported[1] + "\n", "")
    )
    first.unlink()  # what has landed does not hang on the file
    second.unlink()
    said = run("rejects", "replay", out)
    assert f"{first}:5 is still rejected: user_id is not text of 1" in said
    assert "\n2 rows have landed" in said

    assert query(
        "select user_id::bigint, amount, _file_name, _file_line, left(_file_checksum, 12),"
        " extra_fields"
        " from transactions where user_id in ('2', '8') order by 1"
    ) == [
        (2, Decimal("12.5"), str(first), 2, checksums[str(first)], None),
        (8, Decimal("1.25"), str(second), 3, checksums[str(second)], {"note": "two\nlines"}),
    ]
    balanced()
    assert query("select count(*) from rejects") == [(4,)]  # nothing is deleted
    assert query(
        "select path, first_line, last_line, lines_read, rows_landed, rows_rejected,"
        " replay_of = (select min(_dlt_load_id) from files) from files"
        " where replay_of is not null order by path"
    ) == [(str(first), 2, 2, 1, 1, 0, True), (str(second), 3, 3, 1, 1, 0, True)]
    assert [text.split()[1:3] for text in run("rejects").splitlines()[1:]] == [
        ["bad_user_id", "1"],
        ["not_json", "1"],
    ]

    said = run("rejects", "replay", out)  # once more, and nothing lands twice
    assert "2 are no open rejects" in said
    assert "\n0 rows have landed" in said
    assert query("select count(*) from transactions") == [(7,)]


def test_a_quote_left_open_is_mended(run, query, balanced, tmp_path):
    file, out = tmp_path / "a.csv", tmp_path / "correct.txt"
    head = "transaction_id,event_ts,user_id,amount,city\n"
    texts = [f"0b9f3c1e-5a4d-4c3b-9f2e-{n:012},2024-03-01T12:00:00Z,{n},1,Lyon" for n in (1, 2, 3)]
    file.write_text(head + "\n".join(texts).replace("2,1,Lyon", '2,1,"Lyon') + "\n")
    run("ingest", "transactions", file)
    assert query("select user_id::bigint, _file_line from transactions order by 1") == [
        (1, 2),
        (3, 4),
    ]
    run("rejects", "export", out)
    correct(out, ('"Lyon', '"Lyon"'))
    run("rejects", "replay", out)
    assert query("select user_id::bigint, city, _file_line from transactions order by 1") == [
        (1, "Lyon", 2),
        (2, "Lyon", 3),
        (3, "Lyon", 4),
    ]
    balanced()


def test_a_whole_json_object_can_stand_for_any_text(run, query, tmp_path):
    csv, parquet, out = tmp_path / "x.csv", tmp_path / "x.parquet", tmp_path / "correct.txt"
    good = json.loads(line(1))
    csv.write_text(",".join(good) + "\n" + ",".join(map(str, good.values())) + "\ngarbled\n")
    columns = {
        "transaction_id": [good["transaction_id"], "x" * 256],
        "event_ts": pa.array([0, 1], pa.timestamp("us", "UTC")),
        "user_id": [2, 3],
        "amount": [1.5, 2.5],
    }
    pq.write_table(pa.table(columns), parquet)
    run("ingest", "transactions", csv, parquet)
    run("rejects", "export", out)
    correct(out, ("garbled", line(4).replace(", ", ",\n ")), ("x" * 256, good["transaction_id"]))
    out.write_bytes(out.read_bytes().replace(b"\n", b"\r\n"))  # as some editors save it
    assert "2 rows have landed" in run("rejects", "replay", out)
    assert query(
        "select user_id::bigint, amount, _file_name, _file_line from transactions"
        " order by _dlt_load_id, 1"
    )[2:] == [
        (3, Decimal("2.5"), str(parquet), 2),
        (4, Decimal("12.5"), str(csv), 3),
    ]
    assert run("rejects") == "There are no open rejects.\n"


def test_files_go_on_as_before_after_a_replay(run, query, balanced, tmp_path):
    file, out = tmp_path / "x.jsonl", tmp_path / "correct.txt"
    file.write_text(line(1) + "\n" + line(2, amount="x") + "\n")
    run("ingest", "transactions", file)
    with file.open("a") as more:
        more.write(line(3) + "\n")
    run("ingest", "transactions", file)
    run("rejects", "export", out)
    correct(out, ('"x"', "2"))
    run("rejects", "replay", out)

    assert "has landed before" in run("ingest", "transactions", file)
    with file.open("a") as more:
        more.write(line(4) + "\n")
    assert "only its new lines" in run("ingest", "transactions", file)
    balanced()
    assert query("select user_id::bigint, _file_line from transactions order by 1") == [
        (user, user) for user in (1, 2, 3, 4)
    ]


def test_a_reject_closes_when_its_line_is_read_again(run, query, tmp_path):
    file, other, out = tmp_path / "x.jsonl", tmp_path / "other.jsonl", tmp_path / "correct.txt"
    file.write_text(f"{line(1)}\nbad\n\n{line(1, user_id=4)}\n{line(3)[:50]}")
    other.write_text("bad\n" + line(9))
    run("ingest", "transactions", file, other)
    assert run("rejects").split()[-5:-2] == ["transactions", "not_json", "3"]
    with file.open("a") as more:
        more.write(line(3)[50:] + "\n")  # its last line had been half written
    run("ingest", "transactions", file)
    assert "    2  " in run("rejects")
    run("rejects", "export", out)

    file.write_text(line(1) + "\n" + line(2) + "\n")
    run("ingest", "transactions", file, "--replace")
    assert run("rejects").splitlines()[1].split() == [
        *("transactions", "not_json", "1", str(other), "1")
    ]
    out.write_text(out.read_text().replace("\tbad", f"\t{line(7)}"))
    said = run("rejects", "replay", out)
    assert "1 are no open rejects (corrected before, or their file was replaced)" in said
    assert query("select _file_name from transactions where user_id = '7'") == [(str(other),)]
    assert query("select count(*) from rejects") == [(3,)]


def test_loads_that_have_not_finished_are_not_there(run, query, tmp_path):
    file, out = tmp_path / "x.jsonl", tmp_path / "correct.txt"
    file.write_text("bad\n" + line(1))
    run("ingest", "transactions", file)
    run("rejects", "export", out)
    correct(out, ("\tbad", f"\t{line(2)}"))
    run("rejects", "replay", out)
    assert run("rejects") == "There are no open rejects.\n"
    query("update _dlt_loads set status = 1 where load_id = (select max(load_id) from _dlt_loads)")
    assert "not_json" in run("rejects")
    query("update _dlt_loads set status = 1")
    assert run("rejects") == "There are no open rejects.\n"


def test_a_killed_replay_is_done_by_the_next_command(run, query, balanced, tmp_path, monkeypatch):
    file, out = tmp_path / "x.jsonl", tmp_path / "correct.txt"
    file.write_text("bad\n" + line(1))
    run("ingest", "transactions", file)
    run("rejects", "export", out)
    correct(out, ("\tbad", f"\t{line(2)}"))

    def killed(*_, **__):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr("ingestion.sources.transactions.landing.copy.Copy.commit", killed)
        run("rejects", "replay", out, code=9)
    assert query("select count(*) from transactions") == [(1,)]

    assert "1 rows have landed" in run("rejects", "replay", out)
    assert "1 are no open rejects" in run("rejects", "replay", out)
    assert query("select user_id::bigint, _file_line from transactions order by 1") == [
        (1, 2),
        (2, 1),
    ]
    balanced()


def test_without_a_file_todays_rules_decide(run, query, balanced, tmp_path, monkeypatch):
    file = tmp_path / "x.csv"
    rows = [f"0b9f3c1e-5a4d-4c3b-9f2e-{n:012};2024-03-01T12:00:00Z;{n};1:25;m" for n in range(6)]
    text = "\n".join(["transaction_id;event_ts;user_id;amount;merchant", *rows, ""])
    content = text.replace("1:25", "1.25", 3).encode()
    file.write_bytes(content.replace(b"5;1:25;m", b"5;1.25;caf\0"))
    run("ingest", "transactions", file)
    assert "0 rows have landed" in run("rejects", "replay")

    amount = contract.READERS["amount"]
    monkeypatch.setitem(
        contract.READERS,
        "amount",
        lambda value, decimals: amount(value.replace(":", "."), decimals),
    )
    said = run("rejects", "replay")
    # its text is not what stood in the file, so it must not land by itself
    assert f"{file}:7 is still rejected: text with a NUL" in said
    assert "2 rows have landed" in said
    assert query(
        "select user_id::bigint, amount, _file_line from transactions where user_id::bigint > 2"
    ) == [
        (3, Decimal("1.25"), 5),
        (4, Decimal("1.25"), 6),
    ]
    balanced()
    assert "0 rows have landed" in run("rejects", "replay")


def test_many_that_are_still_rejected_are_counted(run, tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join([*(f"bad {n}" for n in range(30)), *map(line, range(30))]))
    run("ingest", "transactions", file)
    said = run("rejects", "replay").splitlines()
    assert len(said) == replay.SHOWN + 2
    assert said[-2] == "30 lines in all are still rejected."


def test_brand_rejects_are_those_of_the_newest_version(run, database, tmp_path):
    file = tmp_path / "brands.csv"
    pipeline = make_pipeline("brands", database, tmp_path / "dlt")
    good = "".join(f"Brand {n},{n}000,3,First,{n}000\n" for n in range(1, 9))
    head = "Brand,Total,Releases,#1 Release,Lifetime Gross\n"
    file.write_text(head + good + "Broken,many,3,First,5\nBroken too,more,3,First,5\n")
    ingest_brands(file, database, pipeline)
    listed = run("rejects").splitlines()[1].split()
    assert (listed[0], *listed[2:]) == ("brands", "2", str(file), "10")
    assert f"{file}:10" in run("rejects", "show", "--source", "brands")
    file.write_text(head + good + "Broken,many,3,First,5\n")
    ingest_brands(file, database, pipeline)
    assert run("rejects").splitlines()[1].split()[2] == "1"
    file.write_text(head + good)
    ingest_brands(file, database, pipeline)
    assert run("rejects") == "There are no open rejects.\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "correct.txt cannot be read: No such file or directory"),
        (line(1), "correct.txt, line 1: there is no reference of a reject"),
        (
            "# x\n0123456789ab:1:bad_transaction_id\tx\n0123456789ab:1:bad_transaction_id\ty\n",
            "line 3: .* twice",
        ),
    ],
    ids=["missing", "not exported", "twice"],
)
def test_a_file_that_cannot_be_replayed(tmp_path, content, said):
    if content is not None:
        (tmp_path / "correct.txt").write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        replay.corrected(tmp_path / "correct.txt")
    assert len(caught.value.message.splitlines()) == 2


def test_a_file_that_cannot_be_exported(run, tmp_path):
    file, out = tmp_path / "x.jsonl", tmp_path / "correct.txt"
    assert "There are no open rejects" in run("rejects", "export", out, code=1)
    file.write_text("bad\n" + line(1))
    run("ingest", "transactions", file)
    said = run("rejects", "export", out, "--reason", "bad_transaction_id", code=1)
    assert (
        said == "Error: There are no open rejects with the reason bad_transaction_id.\n"
        "Nothing is written. For rows that are marked: --marked\n"
    )
    assert not out.exists()
    run("rejects", "export", out)
    before = out.read_text()
    assert "is there already" in run("rejects", "export", out, code=1)
    assert out.read_text() == before
    assert "cannot be written" in run("rejects", "export", tmp_path / "no" / "x", code=1)


def test_what_is_shown_is_safe_on_a_terminal(run, tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text("\x1b[2Jhidden é" + "x" * 1_000 + "\n" + line(1))
    run("ingest", "transactions", file)
    shown = run("rejects", "show").splitlines()[1]
    assert shown.startswith("    \\x1b[2Jhidden éxxx")
    assert shown.endswith("xxx... (1,012 characters)")
    assert len(shown) < 200


def test_a_bare_clone_gets_no_server_for_it(target, tmp_path):
    done = Built(target, tmp_path).marquee("rejects", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no warehouse yet.")
    assert not list(tmp_path.iterdir())


def test_the_models_hold_after_a_replay_and_a_replacement(run, database, tmp_path):
    warehouse, out = Built(database, tmp_path), tmp_path / "correct.txt"
    file, other = tmp_path / "x.jsonl", tmp_path / "y.jsonl"
    file.write_text("\n".join([line(1), line(2, amount="x"), line(3), ""]))
    other.write_text(
        "\n".join([line(11, amount="x"), line(12), line(13, user_id=0.5), line(14), ""])
    )
    identities = (
        "+assert_landed_equals_fact_superseded_and_marked",
        "+assert_lines_are_those_of_the_ledger",
        "+rejected_transactions",
    )
    rejects = (
        "select file_name, file_line, dlt_load_id from marts.rejected_transactions"
        " where rejection_stage = 'unread' order by 1, 2"
    )

    def build() -> list[tuple]:
        run_ = warehouse.dbt("build", "--select", *identities, "--indirect-selection", "cautious")
        assert "PASS assert_landed" in run_.stdout
        assert "PASS assert_lines" in run_.stdout
        left = [(r.file, r.line, r.load_id) for r in open_rejects(database, "transactions")]
        assert warehouse.rows(rejects) == sorted(left)
        return warehouse.rows(
            "select user_id::bigint, file_line from marts.fct_transactions order by 1"
        )

    warehouse.dbt("seed")
    run("ingest", "transactions", file, other)
    assert build() == [(1, 1), (3, 3), (12, 2), (14, 4)]
    run("rejects", "export", out)
    out.write_text(out.read_text().replace('"x"', "2"))
    run("rejects", "replay", out)
    assert build() == [(1, 1), (2, 2), (3, 3), (11, 1), (12, 2), (14, 4)]
    assert [row[:2] for row in warehouse.rows(rejects)] == [(str(other), 3)]
    file.write_text("\n".join([line(1), line(3), "?", ""]))  # corrected rows go with their file
    run("ingest", "transactions", file, "--replace")
    assert build() == [(1, 1), (3, 2), (11, 1), (12, 2), (14, 4)]
    assert [row[:2] for row in warehouse.rows(rejects)] == [(str(file), 3), (str(other), 3)]
