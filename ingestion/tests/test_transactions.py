"""Card transactions: made-up files, reading them, landing them once whatever happens."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.errors import UserError
from ingestion.pipeline import LoadReport, make_pipeline, one_at_a_time
from ingestion.run import own_file
from ingestion.sample.plan import Shares
from ingestion.sample.settings import STATUSES
from ingestion.sample.transactions import generate
from ingestion.sources import transactions
from ingestion.sources.transactions import contract, ledger, settings, tables
from ingestion.sources.transactions.formats import csv_records as records
from ingestion.sources.transactions.formats import csv_rows, json_lines, lines, parquet, reader
from ingestion.sources.transactions.inputs import source_file
from ingestion.sources.transactions.landing.copy import Copy
from ingestion.sources.transactions.mapping.rules import CONTRACT
from ingestion.tests.conftest import execute, reachable_folder
from ingestion.warehouse.target import Target

ID = "0b9f3c1e-5a4d-4c3b-9f2e-1d2c3b4a5f60"
GOOD = {
    "transaction_id": ID,
    "event_ts": "2024-03-01T12:00:00Z",
    "user_id": 7,
    "amount": 12.5,
    "merchant": "Fnac",
    "category": "electronics",
    "city": "Lyon",
    "status": "APPROVED",
    "payment_method": "card",
    "currency": "EUR",
}


def line(**changes) -> str:
    """A good line with some fields changed; ``...`` takes a field out."""
    return json.dumps({k: v for k, v in (GOOD | changes).items() if v is not ...})


def raw(**changes: str) -> str:
    """A good line with some values written literally."""
    pairs = {k: json.dumps(v) for k, v in GOOD.items()} | changes
    return "{" + ", ".join(f'"{k}": {v}' for k, v in pairs.items()) + "}"


def file_of(path: Path, **more) -> source_file.SourceFile:
    size, checksum, _ = source_file.probe(path)
    look = source_file.look_at(path)
    return source_file.SourceFile(path.name, path, size, checksum, look.form, look.gzipped, **more)


def read(path: Path, **more) -> tuple[list[dict], list[dict]]:
    """All rows and rejects of a file, each in the order of lines."""
    rows, rejects = [], []
    with closing(reader.Reader(threads=1)) as files:
        for batch in files.read(file_of(path, **more)):
            rows += batch.rows.to_pylist()
            rejects += batch.rejects.to_pylist()
    return tuple(sorted(found, key=lambda row: row["_file_line"]) for found in (rows, rejects))


@pytest.fixture
def land(database: Target, tmp_path: Path) -> Callable[..., LoadReport]:
    """``ingest`` into the test's database."""

    def ingest(*paths, **options) -> LoadReport:
        pipeline = make_pipeline("transactions", database, tmp_path / "dlt")
        return transactions.ingest(paths, database, pipeline=pipeline, **options)

    return ingest


@pytest.fixture
def query(database: Target) -> Callable[..., list[tuple]]:
    def run(text: str) -> list[tuple]:
        with closing(database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set search_path to raw_transactions; set timezone to 'UTC'")
            cursor.execute(text)
            return cursor.fetchall()

    return run


# What the generator makes


def test_a_seed_gives_the_same_lines_everywhere(tmp_path):
    generate(2_000, 42, tmp_path / "a.jsonl")
    found = hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()
    assert found == "318e5d934d533d9f541dbf7c15373a61890be63325e968ad0552af7fe6d047c5"
    generate(2_000, 42, tmp_path / "b.jsonl.gz")
    assert (
        gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes())
        == (tmp_path / "a.jsonl").read_bytes()
    )
    generate(2_000, 43, tmp_path / "c.jsonl")
    assert (tmp_path / "c.jsonl").read_bytes() != (tmp_path / "a.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("rows", "shares"),
    [
        (20_000, Shares()),
        (3_000, Shares(0.1, 0.05, 0.1, 0.05, 0.05, 0.02)),
        (1_000, Shares(0, 0, 0, 0, 0, 0)),
        (1, Shares()),
    ],
)
def test_counts_are_exact(tmp_path, rows, shares):
    file, noted = tmp_path / "made.jsonl", tmp_path / "counts.json"
    counts = generate(rows, 7, file, shares=shares, counts=noted)
    assert json.loads(noted.read_text()) == counts

    found, seen, latest, versions = Counter(), set(), None, {}
    for text in file.read_bytes().splitlines():
        found["lines"] += 1
        try:
            row = contract.row_of_json(text)
        except contract.Refused as refusal:
            found["rejected"] += 1
            found[f"reject.{refusal.code}"] += 1
            continue
        key, at, amount, status, currency = row[0], row[1], row[3], row[7], row[9]
        found["landed"] += 1
        found[f"status.{status}"] += 1
        if text in seen:
            found["repeated"] += 1
            continue
        seen.add(text)
        future = at > datetime(2100, 1, 1, tzinfo=timezone.utc).timestamp() * 1e6
        broken = {
            "negative_amount": amount < 0,
            "absurd_amount": amount > 100_000,
            "unknown_status": status not in STATUSES,
            "unknown_currency": currency != "EUR",
            "future_timestamp": future,
        }
        found.update(f"rule.{rule}" for rule, is_broken in broken.items() if is_broken)
        if not any(broken.values()):
            assert 5 <= amount <= 750
            if key in versions:
                before, was = versions[key]
                assert before < at
                found[f"{was}_to_{status}".lower()] += 1
            versions[key] = (at, status)
        if not future:
            found["late"] += latest is not None and at < latest
            latest = max(latest or at, at)
    found["transactions"] = len(versions)
    found.pop("status.LOST", None)
    assert found == Counter(counts)
    assert rows < 1_000 or abs(counts["status.APPROVED"] / counts["landed"] - 0.75) < 0.01


@pytest.mark.parametrize(
    "arguments", [{"rows": 0}, {"seed": -1}, {"shares": Shares(broken=0.9, repeated=0.2)}]
)
def test_nonsense_is_refused_and_leaves_no_file(tmp_path, arguments):
    with pytest.raises(UserError):
        generate(**{"rows": 10, "seed": 1, "out": tmp_path / "x.jsonl"} | arguments)
    assert not list(tmp_path.iterdir())


# What a line must be

BAD = [
    ("not_json", "nonsense"),
    ("not_json", line()[:70]),
    ("not_json", line() + ","),
    ("not_json", line()[:-1] + ",}"),
    ("not_json", line() + line()),
    ("not_json", raw(amount="NaN")),
    ("not_json", raw(amount="-Infinity")),
    ("not_json", raw(user_id="007")),
    ("not_json", raw(city='"a\tb"')),
    ("not_json", line(deep="?").replace('"?"', "[" * 100_000 + "]" * 100_000)),
    ("not_utf8", line().encode().replace(b"Lyon", b"Ly\xf6n")),
    ("not_object", f"[{line()}]"),
    ("not_object", "null"),
    ("duplicate_field", raw(city='"Lyon", "city": "Paris"')),
    ("duplicate_field", raw(amount='1, "amount": 1')),
    *[("missing_field", line(**{name: ...})) for name in settings.MANDATORY],
    *[("missing_field", line(**{name: None})) for name in settings.MANDATORY],
    ("missing_field", "{}"),
    *[
        (f"bad_{name}", line(**{name: value}))
        for name in settings.IDS
        for value in ("", " \u200b", "x" * 256, 7.5, 7.0, True, [7], {"id": 7})
    ],
    *[(f"bad_{name}", raw(**{name: value})) for name in settings.IDS for value in ("1e5", "7.0")],
    *[("missing_field", line(**{name: "\\N"})) for name in settings.MANDATORY],
    *[("bad_text", line(**{name: "a\0b"})) for name in settings.IDS],
    ("bad_timestamp", line(event_ts="yesterday")),
    ("bad_timestamp", line(event_ts="2024-03-01")),
    ("bad_timestamp", line(event_ts="2024-02-30T00:00:00Z")),
    ("bad_timestamp", line(event_ts="2023-02-29T00:00:00Z")),
    ("bad_timestamp", line(event_ts="2024-03-01T24:00:00Z")),
    ("bad_timestamp", line(event_ts="2024-03-01T10:00:61Z")),
    ("bad_timestamp", line(event_ts="2024-03-01T10:00:00+25:00")),
    ("bad_timestamp", line(event_ts="2024-03-01T10:00:00 CET")),
    ("bad_timestamp", line(event_ts="0001-01-01T00:00:00+01:00")),
    ("bad_timestamp", line(event_ts="٢٠٢٤-03-01T10:00:00Z")),
    ("bad_timestamp", line(event_ts=1709294400)),
    *[
        ("bad_amount", line(amount=written))
        for written in (
            *("12,50 EUR", "€12.50", "12.50-", "(1.00)", "\u221212.50", "1.00 CR", "--1", "1_000"),
            *("1,00,000.00", "1,2,3", "1.234,56.7", "1 23", "01 234", "1234 567", "1'234\u2019567"),
            *("1,234.56,", "0,1,2", "12,", "1.000,00001", "100.000.000.000.000", "\uff11", "1 ,5"),
        )
    ],
    *[("ambiguous_amount", line(amount=written)) for written in ("1.000", "-1,000", "12.345")],
    ("bad_amount", line(amount="12.50 EUR")),
    ("bad_amount", line(amount="")),
    ("missing_field", line(amount="NaN")),
    ("bad_amount", raw(amount="0.00001")),
    ("bad_amount", raw(amount="1.00000000000000000001")),
    ("bad_amount", raw(amount="100000000000000")),
    ("bad_amount", raw(amount="1e14")),
    ("bad_amount", raw(amount="1e999999999")),
    ("bad_amount", line(amount={"value": 1})),
    ("wrong_type", line(merchant=5)),
    ("wrong_type", line(category=["grocery"])),
    ("wrong_type", line(city={"name": "Lyon"})),
    ("wrong_type", line(status=True)),
    ("bad_text", line(merchant="a\0b")),
    ("bad_text", line(merchant="\ud800")),
    ("bad_text", line(note="a\0b")),
]

US = 1_000_000
NOON = 1_709_294_400 * US  # 2024-03-01 12:00 UTC
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
READINGS = [
    ("transaction_id", ID.upper(), ID),
    ("transaction_id", ID.replace("-", ""), ID),
    ("event_ts", "2024-03-01T12:00:00", NOON),
    ("event_ts", "2024-03-01 14:00:00.250+02:00", NOON + US // 4),
    ("event_ts", "2024-03-01T14:00:00.000001+0200", NOON + 1),
    ("event_ts", "2024-03-01T06:30:00-05:30", NOON),
    ("event_ts", "2024-03-01T12:00Z", NOON),
    ("event_ts", "2024-03-01t12:00:00z", NOON),
    ("event_ts", "20240301T120000Z", NOON),
    ("event_ts", "2024-03-01T12:00:00.123456789Z", NOON + 123_456),
    ("event_ts", "2999-01-01T00:00:00Z", 32_472_144_000 * US),
    *[
        (name, written, str(written))
        for name in settings.IDS
        for written in (
            *("42", "007", "-1", "1.0", "ch_3MtwBwLkdIwHu7ix0", "a b", "x" * 255, "null-1", "é/日"),
            *(5, -5, 2**63, 10**39),
        )
    ],
    ("transaction_id", ID[:-1], ID[:-1]),
    ("transaction_id", ID.replace("b", "g").upper(), ID.replace("b", "g").upper()),
    ("user_id", ID.upper(), ID.upper()),
    ("amount", 0, Decimal(0)),
    ("amount", -3.25, Decimal("-3.25")),
    ("amount", "99999999999999.9999", Decimal("99999999999999.9999")),
    ("amount", "12.500000", Decimal("12.5")),
    ("amount", "1.5e2", Decimal(150)),
    ("amount", "12,50", Decimal("12.5")),
    ("amount", "1.234.567,89", Decimal("1234567.89")),
    ("amount", "1,234,567.89", Decimal("1234567.89")),
    ("amount", "1 234,56", Decimal("1234.56")),
    ("amount", "1\u202f234\u202f567,5", Decimal("1234567.5")),
    ("amount", "1'234.56", Decimal("1234.56")),
    ("amount", "1\u2019234", Decimal(1234)),
    ("amount", "1.000.000", Decimal(1_000_000)),
    ("amount", "-1,000,000", Decimal(-1_000_000)),
    ("amount", "0.125", Decimal("0.125")),
    ("amount", "0,125", Decimal("0.125")),
    ("amount", "1234.567", Decimal("1234.567")),
    ("amount", "1.2345", Decimal("1.2345")),
    ("amount", ",5", Decimal("0.5")),
    ("amount", "+1.000,00", Decimal(1000)),
    ("amount", "\u00a012.50\ufeff", Decimal("12.5")),
    ("amount", 1.125, Decimal("1.125")),
    ("user_id", "\u202f42\r", "42"),
    ("event_ts", "\u3000 2024-03-01T12:00:00Z\u200b", NOON),
    ("transaction_id", f" \u00a0{ID}\t", ID),
    ("merchant", None, None),
    *[("merchant", word, None) for word in settings.NULL_WORDS],
    ("merchant", "Null", "Null"),
    ("merchant", "", ""),
    ("merchant", "L'Été 日本 😀", "L'Été 日本 😀"),
    ("merchant", 'a "quoted" \\ name', 'a "quoted" \\ name'),
    ("city", "x" * 1_000_000, "x" * 1_000_000),
]


@pytest.mark.parametrize(("code", "text"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_line_is_refused_with_its_reason(code, text):
    with pytest.raises(contract.Refused) as caught:
        contract.row_of_json(
            text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
        )
    assert caught.value.code == code
    assert len(caught.value.reason) < 200


@pytest.mark.parametrize(("field", "written", "value"), READINGS, ids=lambda value: str(value)[:40])
def test_a_value_is_read_as_it_is_written(field, written, value):
    row = contract.row_of_json(line(**{field: written}).encode())
    assert row[settings.FIELDS.index(field)] == value


def test_the_largest_amount_keeps_its_last_digit():
    row = contract.row_of_json(raw(amount="99999999999999.9999").encode())
    assert row[3] == Decimal("99999999999999.9999")


def test_unknown_fields_are_kept_as_they_were_written(tmp_path):
    text = raw(x="1.10", big="12345678901234567890.5", y='{"a": [1, null, "é"]}', z="true")
    expected = '{"x": 1.10, "big": 12345678901234567890.5, "y": {"a": [1, null, "é"]}, "z": true}'
    assert contract.row_of_json(text.encode())[-1] == expected
    flat = raw(x="1.10", note='"a b"', gone="null", ok="false")
    (tmp_path / "flat.jsonl").write_text(f"{flat}\n" * 1_000)
    rows, _ = read(tmp_path / "flat.jsonl")
    assert {row["extra_fields"] for row in rows} == {
        '{"x": 1.10, "note": "a b", "gone": null, "ok": false}'
    }


# SQL takes what Python would take, and reads it alike

PIECES = ['"', "\\", ",", "{", "}", ":", " ", "\t", "\r", "\0", "é", "0", "-", "+", ".", "e5"]
PIECES += ["null", "true", "[1]", '"x": 1, ', '"x": "y", ', '"amount": 1, ', "\x0b", "\\u0000"]
PIECES += ["NaN", '"x": {"amount": 3.5}, ', '"x": -0.50, ', "\ufeff", '""', ";", "\udcff"]


def mutilate(text: str, dice: random.Random) -> bytes:
    for _ in range(dice.randint(0, 2)):
        at = dice.randrange(len(text) + 1)
        if dice.random() < 0.6:
            at = dice.choice([i for i, c in enumerate(text) if c in '", {}:;'] or [at])
        cut = dice.choice([0, 0, 1, 2])
        text = text[:at] + dice.choice([*PIECES, ""]) + text[at + cut :]
    return text.encode(errors="surrogateescape")


def both_ways(path: Path, monkeypatch: pytest.MonkeyPatch) -> list:
    found = []
    for few in (1, 10**9):
        for module in (reader, json_lines):
            monkeypatch.setattr(module, "FEW", few)
        found.append(read(path))
    return found


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_sql_and_python_agree_on_json(tmp_path, monkeypatch, end):
    dice = random.Random(5)
    generate(300, 5, tmp_path / "made.jsonl")
    texts = (tmp_path / "made.jsonl").read_text().splitlines()
    texts += [text.replace("}", ', "device": "ios", "score": 0.50}') for text in texts[:50]]
    known = [line(**{field: written}) for field, written, _ in READINGS if field != "city"]
    known += [text for _, text in BAD if isinstance(text, str) and len(text) < 1_000]
    path = tmp_path / "mutilated.jsonl"
    mutilated = [mutilate(dice.choice(texts), dice) for _ in range(4_000)]
    mutilated += [text.encode(errors="surrogatepass") for text in known for _ in range(3)]
    path.write_bytes(end.join(mutilated))
    by_sql, by_python = both_ways(path, monkeypatch)
    assert by_sql == by_python
    assert len(by_sql[0]) > 1_000
    assert len(by_sql[1]) > 1_000


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_sql_and_python_agree_on_csv(tmp_path, monkeypatch, delimiter):
    dice = random.Random(5)
    quoting = csv.QUOTE_ALL if delimiter == ";" else csv.QUOTE_MINIMAL
    out = io.StringIO()
    names = [*reversed(settings.FIELDS), "note"]
    writer = csv.DictWriter(out, names, delimiter=delimiter, quoting=quoting, lineterminator="\n")
    writer.writerows(GOOD | {"note": note} for note in ("", "a, b; c", 'q"q', "é"))
    texts = out.getvalue().splitlines()
    rate = 0.5 if delimiter == "," else 0.01
    body = [
        mutilate(text, dice) if dice.random() < rate else text.encode()
        for text in dice.choices(texts, k=3_000)
    ]
    path = tmp_path / "mutilated.csv"
    path.write_bytes(b"\n".join([delimiter.join(names).encode(), *body]))
    by_sql, by_python = both_ways(path, monkeypatch)
    assert by_sql == by_python
    assert len(by_sql[0]) > 1_000
    assert len(by_sql[1]) > 0


# How amounts are written, which a file says as a whole

WRITTEN = [  # amounts of a file, and what lands of each: None for a reject
    (["236,48", "1.000", "-1.000", "12"], ["236.48", 1000, -1000, 12]),
    (["1.000", "2.500", "0,5"], [1000, 2500, "0.5"]),
    (["1.234.567", "12.345"], [1_234_567, 12_345]),
    (["1 234,5", "1.000", "1,000"], ["1234.5", 1000, 1]),
    (["236.48", "1.000", "1,000"], ["236.48", 1, 1000]),
    (["0.500", "12.345", "1,234.56"], ["0.5", "12.345", "1234.56"]),
    (["1,234,567", "1.000"], [1_234_567, 1]),
    (["5", "1.000", "1,000", "1 000", "1'000"], [5, None, None, 1000, 1000]),
    (["236,48", "236.48", "1.000"], ["236.48", "236.48", None]),
    (["\u00a0236,48\u00a0", "1.000\u202f"], ["236.48", 1000]),
    (["236,48 x", "1.000"], [None, None]),
]


def written(folder: Path, form: str, amounts: list[str]) -> Path:
    """A file of these amounts, each as text."""
    path = folder / f"x.{form}"
    if form == "jsonl":
        path.write_text("\n".join(line(amount=amount) for amount in amounts))
    elif form == "csv":
        head = "transaction_id;event_ts;user_id;amount\n"
        rows = [f"{ID};2024-03-01T12:00:00Z;7;{amount}" for amount in amounts]
        path.write_text(head + "\n".join(rows))
    else:
        columns = {name: [GOOD[name]] * len(amounts) for name in settings.MANDATORY[:3]}
        pq.write_table(pa.table(columns | {"amount": amounts}), path)
    return path


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("amounts", "values"), WRITTEN, ids=lambda value: " ".join(map(str, value))
)
def test_a_file_says_how_it_writes_amounts(tmp_path, monkeypatch, form, amounts, values):
    path = written(tmp_path, form, amounts)
    by_sql, by_python = both_ways(path, monkeypatch)
    assert by_sql == by_python
    rows, rejects = by_sql
    assert [row["amount"] for row in rows] == [Decimal(v) for v in values if v is not None]
    assert len(rejects) == values.count(None)
    codes = {"bad_amount" if "48 x" in r["raw_text"] else "ambiguous_amount" for r in rejects}
    assert {reject["reason_code"] for reject in rejects} == codes


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize(("sign", "thousand"), [("0,5", 1000), ("0.5", 1), ("7", None)])
def test_the_line_that_says_so_may_stand_anywhere(tmp_path, monkeypatch, form, sign, thousand):
    """In another block than the lines that need it, in the part that has landed, or behind."""
    monkeypatch.setattr(lines, "CHUNK_BYTES", 20_000)
    for amounts in ([sign, *["1.000"] * 600], ["1.000"] * 600 + [sign]):
        path = written(tmp_path, form, amounts)
        rows, rejects = read(path)
        landed = Counter(row["amount"] for row in rows)
        assert landed[Decimal(thousand or 1000)] == (600 if thousand else 0)
        assert len(rejects) == (0 if thousand else 600)
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    content = content[:first] + content[content.rindex(b"\n") + 1 :] + b"\n" + content[first:]
    path.write_bytes(content)
    done = content.index(b"\n", first) + 1
    rows, rejects = read(path, landed_bytes=done, landed_lines=2)
    assert {row["amount"] for row in rows[:-1]} == ({Decimal(thousand)} if thousand else set())


def test_numbers_say_nothing_about_texts(tmp_path):
    """A number's mark is a point by the form of its file, also where three digits follow."""
    texts = [raw(amount="1.125"), raw(amount="236.48"), line(amount="1.000"), raw(amount="2.500")]
    (tmp_path / "x.jsonl").write_text("\n".join(texts))
    rows, rejects = read(tmp_path / "x.jsonl")
    assert [row["amount"] for row in rows] == [Decimal(v) for v in ("1.125", "236.48", "2.5")]
    assert [reject["reason_code"] for reject in rejects] == ["ambiguous_amount"]
    columns = {name: [GOOD[name]] * 2 for name in settings.MANDATORY[:3]}
    for kind in (pa.decimal128(10, 3), pa.float64()):
        amounts = pa.array([1.125, 1000.0]).cast(kind)
        pq.write_table(pa.table(columns | {"amount": amounts}), tmp_path / "x.parquet")
        rows, rejects = read(tmp_path / "x.parquet")
        assert [row["amount"] for row in rows] == [Decimal("1.125"), Decimal(1000)]


def test_many_amounts_with_a_comma_are_read_by_sql(tmp_path, monkeypatch):
    amounts = [f"{n}.{n % 1000:03},{n % 100:02}" for n in range(1, 1_000)]
    path = written(tmp_path, "csv", [*amounts, "1"])
    path.write_bytes(path.read_bytes() + b"\n")
    judged = []
    monkeypatch.setattr(
        csv_rows.CsvChunk,
        "fields",
        lambda chunk, at: judged.append(at),  # noqa: ARG005
    )
    rows, _ = read(path)
    assert judged == []
    assert [row["amount"] for row in rows[:2]] == [Decimal("1001.01"), Decimal("2002.02")]


def test_the_quick_way_is_taken(tmp_path, monkeypatch):
    """Otherwise the tests above compare Python with itself."""
    generate(5_000, 1, tmp_path / "made.jsonl", shares=Shares(0, 0, 0, 0, 0, 0))
    judged = []
    monkeypatch.setattr(
        json_lines.JsonChunk,
        "fields",
        lambda chunk, at: judged.append(at),  # noqa: ARG005
    )
    rows, _ = read(tmp_path / "made.jsonl")
    assert len(rows) == 5_000
    assert not judged


def test_the_quick_way_is_taken_beside_csv_records_over_lines(tmp_path, monkeypatch):
    texts = [f'{ID},2024-03-01T12:00:00Z,{user},1,"Lyon"' for user in range(1_000)]
    texts[500] = texts[500].replace("Lyon", "two\nlines")
    texts[600] = texts[600].replace('Lyon"', "Lyon")
    head = "transaction_id,event_ts,user_id,amount,city"
    (tmp_path / "x.csv").write_text("\n".join([head, *texts, ""]))
    judged, fields = [], csv_rows.CsvChunk.fields
    monkeypatch.setattr(
        csv_rows.CsvChunk,
        "fields",
        lambda chunk, at: judged.append(at) or fields(chunk, at),
    )
    rows, rejects = read(tmp_path / "x.csv")
    assert (len(rows), len(rejects)) == (999, 1)
    assert judged == [501, 602]


# Lines, blocks, files


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("chunk", [64, 1_000, 1 << 20])
def test_line_numbers_hold_across_blocks(tmp_path, monkeypatch, chunk, packed, end):
    monkeypatch.setattr(lines, "CHUNK_BYTES", chunk)
    texts = [line(user_id=number) for number in range(1, 301)]
    texts[9], texts[19], texts[299] = "", "broken é", "cut off"
    content = "\ufeff".encode() + end.join(texts).encode()
    path = tmp_path / ("x.jsonl.gz" if packed else "x.jsonl")
    path.write_bytes(gzip.compress(content) if packed else content)
    rows, rejects = read(path)
    assert {row["_file_line"]: int(row["user_id"]) for row in rows} == {
        number: number for number in range(1, 301) if number not in (10, 20, 300)
    }
    assert [(r["_file_line"], r["raw_text"]) for r in rejects] == [
        (20, "broken é"),
        (300, "cut off"),
    ]


def test_what_no_text_column_holds_is_spelt_out_in_rejects(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"caf\xe9 \0 \\ \xc3\xa9\r\n" + line().encode())
    _, rejects = read(tmp_path / "x.jsonl")
    assert [r["raw_text"] for r in rejects] == ["caf\\xe9 \\x00 \\ é"]


@pytest.mark.parametrize("chunk", [300, 1 << 20])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8", "utf-8-sig", "of both"])
def test_csv_is_read_in_utf8_and_latin1(tmp_path, monkeypatch, encoding, chunk):
    monkeypatch.setattr(lines, "CHUNK_BYTES", chunk)
    texts = ["transaction_id;event_ts;user_id;amount;merchant;Libellé"]
    texts += [f"{ID};2024-01-01T10:00:00Z;{n};1.5;Café;Noël" for n in range(400)]
    texts[9] = f"{ID};2024-01-01T10:00:00Z;9;much;Café;Noël"
    encodings = ["latin-1", "utf-8"] if encoding == "of both" else [encoding.removesuffix("-sig")]
    data = b"\n".join(text.encode(encodings[n % len(encodings)]) for n, text in enumerate(texts))
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbf" * encoding.endswith("sig") + data)
    rows, rejects = read(path)
    assert [int(row["user_id"]) for row in rows] == [n for n in range(400) if n != 8]
    assert {(row["merchant"], row["extra_fields"]) for row in rows} == {
        ("Café", '{"libellé": "Noël"}')
    }
    assert [(r["_file_line"], r["raw_text"]) for r in rejects] == [(10, texts[9])]
    assert source_file.look_at(path).header == texts[0]


def test_csv_records_may_span_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK_BYTES", 300)
    texts = ["\ufefftransaction_id;Event_TS; user_id;amount;merchant;note"]
    for number in range(2, 200, 2):
        texts.append(f'{ID};2024-03-01T12:00:00Z;{number};"1.5";"two\nlines";')
    texts += [f"{ID};2024-03-01T12:00:00Z;7", "", f"{ID};2024-03-01T12:00:00Z;7;1:5;;n"]
    (tmp_path / "x.csv").write_text("\n".join(texts), encoding="utf-8")
    rows, rejects = read(tmp_path / "x.csv")
    assert {row["_file_line"]: int(row["user_id"]) for row in rows} == {
        n: n for n in range(2, 200, 2)
    }
    assert {row["merchant"] for row in rows} == {"two\nlines"}
    assert {row["extra_fields"] for row in rows} == {None}
    assert [(r["_file_line"], r["reason_code"]) for r in rejects] == [
        (200, "column_count"),
        (202, "bad_amount"),
    ]


@pytest.mark.parametrize("chunk", [500, 20_000, 8 << 20])
def test_a_quote_left_open_takes_no_good_line_along(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(lines, "CHUNK_BYTES", chunk)
    texts = ["transaction_id,event_ts,user_id,amount,city"]
    texts += [f"{ID},2024-03-01T12:00:00Z,{number},1.5,Lyon" for number in range(2, 3_019)]
    texts[11] = texts[11].replace("Lyon", '"Lyon')
    texts[2_999] = texts[2_999].replace("Lyon", '"St ""X"""')
    texts[3_010] = texts[3_010].replace("Lyon", '"two\nlines"')
    path = tmp_path / "x.csv"
    path.write_text("\n".join(texts))
    by_sql, by_python = both_ways(path, monkeypatch)
    assert by_sql == by_python
    rows, rejects = by_sql
    assert [(int(row["user_id"]), row["_file_line"]) for row in rows] == [
        (number, number + (number > 3_011)) for number in range(2, 3_019) if number != 12
    ]
    assert {row["city"] for row in rows} == {"Lyon", 'St "X"', "two\nlines"}
    assert [(r["_file_line"], r["raw_text"]) for r in rejects] == [(12, texts[11])]


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_sql_and_python_agree_on_csv_over_lines(tmp_path, monkeypatch, delimiter, end):
    """However the file is cut into blocks; and what is not mutilated lands, whatever is near it."""
    dice = random.Random(5)
    names = ["note", *settings.FIELDS]
    notes = ["", "", "a, b; c", 'q"q', "two\nlines", 'a\n\n"b"\n, c;\n', 'x,"\n",y']
    path, body, whole, at = tmp_path / "x.csv", [], {}, 2
    for user in range(1, 1_001):
        out = io.StringIO()
        writer = csv.DictWriter(out, names, delimiter=delimiter, lineterminator="\n")
        writer.writerow(GOOD | {"user_id": user, "note": dice.choice(notes)})
        text = out.getvalue()[:-1]
        if dice.random() < 0.1:
            place = dice.choice([i for i, c in enumerate(text) if c in '",;\n'])
            text = text[:place] + '"' + text[place + dice.choice([0, 1]) :]
        else:
            whole[str(user)] = at
        body.append(text.replace("\n", end))
        at += text.count("\n") + 1
    path.write_bytes(end.join([delimiter.join(names), *body]).encode())
    found = []
    for chunk in (1_000, 20_000, 8 << 20):
        monkeypatch.setattr(lines, "CHUNK_BYTES", chunk)
        found += both_ways(path, monkeypatch)
    assert all(other == found[0] for other in found)
    rows, rejects = found[0]
    assert whole.items() <= {row["user_id"]: row["_file_line"] for row in rows}.items()
    assert len(rejects) > 50
    numbers = [row["_file_line"] for row in rows + rejects]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(("limit", "value"), [("LINES", 11), ("BYTES", 500)])
def test_a_csv_record_is_of_a_sane_length(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(records, f"MAX_RECORD_{limit}", value)
    head = "transaction_id,event_ts,user_id,amount,city\n"
    text = f'{ID},2024-03-01T12:00:00Z,7,1.5,"' + f"{'x' * 30}\n" * 10 + 'end"\n'
    (tmp_path / "x.csv").write_text(head + text)
    rows, rejects = read(tmp_path / "x.csv")
    assert (len(rows), len(rejects)) == (1, 0)
    longer = text.replace("end", f"{'x' * 30}\n" * 10 + "end")
    (tmp_path / "x.csv").write_text(head + longer + text)
    rows, rejects = read(tmp_path / "x.csv")
    assert [row["_file_line"] for row in rows] == [23]
    assert [r["_file_line"] for r in rejects] == list(range(2, 23))
    assert rejects[0]["reason"].startswith("the line is not CSV: a quote is not closed within")


def test_parquet_is_read_as_it_is_typed(tmp_path):
    table = pa.table(
        {
            "transaction_id": pa.array([ID, ID, None, "x" * 256]).dictionary_encode(),
            "event_ts": pa.array([NOON, NOON + 1, NOON, NOON], pa.timestamp("us", "Europe/Paris")),
            "user_id": pa.array([1, 2, 3, 4], pa.int32()),
            "amount": pa.array([1.5, 0.1, 2.0, 3.0]),
            "merchant": ["Fnac", None, "a", "b"],
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    rows, rejects = read(tmp_path / "x.parquet")
    assert [(r["_file_line"], r["amount"]) for r in rows] == [
        (1, Decimal("1.5000")),
        (2, Decimal("0.1000")),
    ]
    assert rows[1]["event_ts"].timestamp() * 1e6 == pytest.approx(NOON + 1)
    assert [r["reason_code"] for r in rejects] == ["missing_field", "bad_transaction_id"]

    with_more = table.append_column("n", pa.array([1, None, 2, 3]))
    pq.write_table(with_more, tmp_path / "more.parquet")
    rows, _ = read(tmp_path / "more.parquet")
    assert [row["extra_fields"] for row in rows] == ['{"n": 1}', None]


def stored(kind: pa.DataType, numbers: list[int | None]) -> pa.Array:
    """Values of a kind by the 64-bit numbers that they are stored as."""
    return pa.array(numbers, pa.int64()).view(kind)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_parquet_are_kept_or_refused(unit, quick):
    """Finer than a microsecond is cut off, towards the past; nothing wraps or is rounded."""
    per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[unit]
    numbers = [NOON // 1_000_000 * per_second, -1, 1, None, 2**63 - 1, -(2**62)] * 50
    table = pa.table(
        {
            "transaction_id": [ID] * 300,
            "event_ts": stored(pa.timestamp(unit, "America/New_York"), numbers),
            "user_id": range(300),
            "amount": ["1"] * 300,
        }
    )
    if not quick:
        table = table.append_column("more", pa.array(["x"] * 300))
    # as Arrow itself has them, as Parquet knows no seconds
    chunk = parquet.ParquetChunk(table, 0, CONTRACT)
    with closing(reader.Reader(threads=1)) as files:
        batch = files.batch(chunk, 0)
    found = {row["_file_line"]: row["event_ts"] for row in batch.rows.to_pylist()}
    for number, line_ in zip(numbers[:6], range(1, 7), strict=True):
        if number is not None and (abs(number) < 2**61 or unit == "ns"):
            micros = number * 1_000_000 // per_second
            assert found.pop(line_) == EPOCH + timedelta(microseconds=micros)
        else:
            assert line_ not in found
    assert Counter(batch.rejects["reason_code"].to_pylist()) == (
        {"missing_field": 50} if unit == "ns" else {"missing_field": 50, "bad_timestamp": 100}
    )


def test_text_of_parquet_that_is_none_is_refused_and_spelt_out(tmp_path):
    parts = pa.array([b"Lyon", b"N\xeemes", b"Nice"] * 100, pa.binary()).buffers()
    table = pa.table({name: [value] * 300 for name, value in GOOD.items() if name != "city"})
    table = table.append_column("city", pa.Array.from_buffers(pa.string(), 300, parts))
    pq.write_table(table, tmp_path / "x.parquet")
    rows, rejects = read(tmp_path / "x.parquet")
    assert [row["city"] for row in rows] == ["Lyon", "Nice"] * 100
    assert {row["reason_code"] for row in rejects} == {"not_utf8"}
    assert [row["_file_line"] for row in rejects] == list(range(2, 300, 3))
    assert json.loads(rejects[0]["raw_text"]) == GOOD | {"city": "N\\xeemes"}


def test_unknown_columns_of_parquet_are_kept_whatever_is_in_them(tmp_path):
    table = pa.Table.from_pylist([GOOD] * 2)
    days = pa.array([0, 416_999_965], pa.int32()).view(pa.date32())
    for name, column in {
        "expires": stored(pa.timestamp("us"), [NOON, 2**62]),
        "span": stored(pa.duration("s"), [None, 2**60]),
        "day": days,
        "local": stored(pa.timestamp("us", "No/Where"), [None, NOON]),
        "nested": pa.array([{"é": [None, float("nan")]}, None]),
        "none": pa.nulls(2),
        "inner": pa.StructArray.from_arrays([days], ["day"]),
    }.items():
        table = table.append_column(name, column)
    table = table.append_column("x", pa.array([1, 2])).append_column("x", pa.array(["a", None]))
    pq.write_table(table, tmp_path / "x.parquet")
    rows, rejects = read(tmp_path / "x.parquet")
    assert not rejects
    shown = "-- is_valid: all not null -- child 0 type: date32[day]"
    assert [json.loads(row["extra_fields"], object_pairs_hook=list) for row in rows] == [
        [
            ("expires", "2024-03-01 12:00:00"),
            ("day", "1970-01-01"),
            ("nested", [("é", [None, "NaN"])]),
            ("inner", [("day", "1970-01-01")]),
            ("x", 1),
            ("x", "a"),
        ],
        [
            ("expires", f"{2**62} timestamp[us]"),
            ("span", f"{2**60} duration[s]"),
            ("day", "416999965 date32[day]"),
            ("local", "2024-03-01 12:00:00.000000Z"),
            ("inner", f"{shown} [<value out of range: 416999965>]"),
            ("x", 2),
        ],
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl.gz", gzip.compress(f"{line()}\n".encode() * 99)[:-20], "not a whole gzip file"),
        ("x.parquet", b"PAR1 and no more", "not a whole Parquet file"),
        ("x.csv", b"id,when\n1,2\n", "no column transaction_id"),
        ("x.csv", (",".join(settings.FIELDS) + ",amount\n").encode(), "amount twice"),
        ("x.jsonl", b"x" * 3_000, "longer than"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setattr(lines, "CHUNK_BYTES", 500)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 2_000)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_chunks_that_are_read_at_once_come_in_their_order(tmp_path, monkeypatch, form):
    """The last amounts alone tell how all are written, and each thread may be the one to ask."""
    monkeypatch.setattr(lines, "CHUNK_BYTES", 60_000)
    amounts = ["1.234"] * 5_000 + ["2,5"] * 300
    found = [
        GOOD | {"amount": amount, "city": f"c{at}", "user_id": "" if at % 97 == 0 else at}
        for at, amount in enumerate(amounts)
    ]
    path = tmp_path / f"x.{form}"
    if form == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, GOOD)
            writer.writeheader()
            writer.writerows(found)
    else:
        path.write_text("\n".join(map(json.dumps, found)))
    seen = []
    for threads in (1, 4, 4):
        with closing(reader.Reader(threads=threads)) as files:
            seen.append(list(files.read(file_of(path))))
    assert len(seen[0]) > 8
    for batches in seen[1:]:
        assert [b.first_line for b in batches] == [b.first_line for b in seen[0]]
        assert [b.done for b in batches] == sorted(b.done for b in batches)
        for one, other in zip(batches, seen[0], strict=True):
            by = [("_file_line", "ascending")]
            assert one.rows.sort_by(by) == other.rows.sort_by(by)
            assert one.rejects == other.rejects
    rows = pa.concat_tables([batch.rows for batch in seen[0]])
    assert set(rows["amount"].to_pylist()) == {Decimal(1234), Decimal("2.5")}
    assert len(rows) == 5_300 - len(range(0, 5_300, 97))


def test_a_file_that_changes_meanwhile_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(line() + "\n")
    before = file_of(path)
    path.write_text(line(user_id=8) + "\n")
    with closing(reader.Reader(threads=1)) as files, pytest.raises(UserError, match="changed"):
        list(files.read(before))


# Landing

LEDGER = (
    "select path, bytes, first_line, last_line, lines_read, rows_landed, rows_rejected,"
    " is_replacement from files order by _dlt_load_id, path"
)


def test_the_types_of_the_raw_layer(land, query, tmp_path):
    texts = [
        line(amount=0.1, event_ts="2024-03-01T12:00:00.5+02:00", note="é", merchant=...),
        raw(amount="99999999999999.9999", transaction_id=f'"{ID.upper()}"'),
        "broken \\u0000",
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(texts))
    report = land(tmp_path / "x.jsonl")
    assert (report.rows, report.rejected) == ({"transactions": 2, "files": 1}, 1)
    at = datetime(2024, 3, 1, 10, 0, 0, 500_000, tzinfo=timezone.utc)
    noon = datetime(2024, 3, 1, 12, tzinfo=timezone.utc)
    assert query(
        "select transaction_id, event_ts, amount, merchant, extra_fields, _file_line,"
        " extra_fields ->> 'note' from transactions order by _file_line"
    ) == [
        (ID, at, Decimal("0.1000"), None, {"note": "é"}, 1, "é"),
        (ID, noon, Decimal("99999999999999.9999"), "Fnac", None, 2, None),
    ]
    checksum = hashlib.sha256((tmp_path / "x.jsonl").read_bytes()).hexdigest()
    for table in ("transactions", "rejects", "files"):
        assert set(query(f"select _file_name, _file_checksum, _dlt_load_id from {table}")) == set(
            query(f"select '{tmp_path}/x.jsonl', '{checksum}', load_id from _dlt_loads")
        )
    types = query(
        "select table_name, column_name, data_type, numeric_precision, numeric_scale,"
        " is_nullable = 'YES' from information_schema.columns"
        " where table_schema = 'raw_transactions' and table_name !~ '^_dlt'"
    )
    text = "character varying"
    expected = {
        **dict.fromkeys(("transaction_id", *settings.TEXT_FIELDS), text),
        "event_ts": "timestamp with time zone",
        "user_id": "character varying",
        "amount": "numeric",
        "extra_fields": "json",
        "_file_line": "bigint",
        **dict.fromkeys(("_file_name", "_file_checksum", "_dlt_load_id"), text),
    }
    assert {row[1]: row[2] for row in types if row[0] == "transactions"} == expected
    assert ("transactions", "amount", "numeric", 18, 4, False) in types
    assert {row[1] for row in types if row[0] == "rejects"} == {
        *("raw_text", "reason_code", "reason"),
        *("_file_name", "_file_line", "_file_checksum", "_dlt_load_id"),
    }


def test_what_is_made_is_what_lands(land, query, tmp_path, monkeypatch):
    """Through several blocks, spilled rows, several jobs; and every line is somewhere."""
    monkeypatch.setattr(lines, "CHUNK_BYTES", 1 << 19)
    monkeypatch.setattr(settings, "HELD_ROWS", 3_000)
    counts = generate(10_000, 3, tmp_path / "made.jsonl", shares=Shares(broken=0.05))
    report = land(tmp_path / "made.jsonl")
    assert report.rows["transactions"] == counts["landed"]
    assert report.rejected == counts["rejected"]
    assert dict(
        query("select status, count(*) from transactions where status != 'LOST' group by 1")
    ) == {
        name.removeprefix("status."): n for name, n in counts.items() if name.startswith("status.")
    }
    assert dict(query("select reason_code, count(*) from rejects group by 1")) == {
        name.removeprefix("reject."): n for name, n in counts.items() if name.startswith("reject.")
    }
    numbers = "select _file_line from transactions union all select _file_line from rejects"
    assert query(f"select count(*), count(distinct _file_line) from ({numbers}) n") == [
        (10_000, 10_000)
    ]
    texts = (tmp_path / "made.jsonl").read_text().splitlines()
    for number, text in query("select _file_line, raw_text from rejects"):
        assert texts[number - 1] == text
    for number, key, amount in query("select _file_line, transaction_id, amount from transactions"):
        row = json.loads(texts[number - 1], parse_float=Decimal)
        assert (row["transaction_id"], Decimal(row["amount"])) == (key, amount)


def test_rejects_are_a_table_even_without_a_reject(land, query, tmp_path):
    (tmp_path / "x.jsonl").write_text(line())
    land(tmp_path / "x.jsonl")
    assert query("select * from rejects") == []
    (tmp_path / "bad.jsonl").write_text("bad\n" + line(user_id=8))
    land(tmp_path / "bad.jsonl")
    assert query("select raw_text, reason_code, _file_line from rejects") == [
        ("bad", "not_json", 1)
    ]


def test_the_same_content_lands_once_whatever_its_name(land, query, tmp_path):
    first, copy = tmp_path / "a.jsonl", tmp_path / "copy.jsonl"
    first.write_text(f"{line()}\n\n{line(user_id=8)}\n")
    shutil.copy(first, copy)
    report = land(first, copy)
    assert report.rows == {"transactions": 2, "files": 1}
    assert report.notes == [f"{copy} has the same content as {first}; skipped."]
    before = query("select * from transactions"), query(LEDGER)
    assert before[1] == [(str(first), first.stat().st_size, 1, 3, 2, 2, 0, False)]

    shutil.rmtree(tmp_path / "dlt")  # the ledger is the truth, not dlt's local state
    report = land(copy)
    assert report.rows == {"transactions": 0, "files": 0}
    assert f"{copy} has landed before as {first}" in report.notes[0]
    assert (query("select * from transactions"), query(LEDGER)) == before
    assert query("select count(*) from _dlt_loads") == [(1,)]


@pytest.mark.parametrize(("kind", "end"), [("jsonl", ""), ("csv", "\n")], ids=["jsonl", "csv"])
def test_a_file_that_grew_lands_its_new_lines(land, query, tmp_path, kind, end):
    path = tmp_path / f"x.{kind}"
    names = ("transaction_id", "event_ts", "user_id", "amount")

    def text(user: int) -> str:
        return line(user_id=user) if kind == "jsonl" else f"{ID},2024-03-01T12:00:00Z,{user},1"

    head = "" if kind == "jsonl" else ",".join(names) + "\n"
    offset = int(kind == "csv")
    path.write_text(head + f"{text(1)}\n{text(2)}{end}")
    land(path)
    with path.open("a") as file:
        file.write(("" if end else "\n") + f"{text(3)}\n{text(4)}\n")
    report = land(path)
    assert report.rows == {"transactions": 2, "files": 1}
    assert query("select user_id::bigint, _file_line from transactions order by 1") == [
        (user, user + offset) for user in (1, 2, 3, 4)
    ]
    assert [row[2:7] for row in query(LEDGER)] == [
        (1, 2 + offset, 2, 2, 0),
        (3 + offset, 4 + offset, 2, 2, 0),
    ]
    assert land(path).rows == {"transactions": 0, "files": 0}


def test_a_line_that_was_half_written_is_read_again(land, query, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(f"{line(user_id=1)}\n{line(user_id=2)[:50]}")
    land(path)
    with path.open("a") as file:
        file.write(line(user_id=2)[50:] + "\n" + line(user_id=3))
    land(path)
    assert query("select user_id::bigint, _file_line from transactions order by 1") == [
        (1, 1),
        (2, 2),
        (3, 3),
    ]
    assert query("select _file_line from rejects") == [(2,)]


@pytest.mark.parametrize("cut", ["two", "two\n", "two\nli", "two\n\n,b\n"])
def test_a_csv_record_that_was_half_written_is_read_again(land, query, tmp_path, cut):
    path, city = tmp_path / "x.csv", "two\n\n,b\nlines" if ",b" in cut else "two\nlines"
    texts = [f"{ID},2024-03-01T12:00:00Z,{user},1,Lyon" for user in (1, 2, 3, 4)]
    texts[0] = texts[0].replace("Lyon", '"a\nb"')
    texts[2] = texts[2].replace("Lyon", f'"{city}"')
    whole = "\n".join(["transaction_id,event_ts,user_id,amount,city", *texts, ""])
    path.write_text(whole[: whole.index(f'"{cut}') + 1 + len(cut)])
    land(path)
    assert query("select count(*) from transactions") == [(2,)]
    path.write_text(whole)
    assert land(path).rows == {"transactions": 2, "files": 1}
    after = 6 + city.count("\n")
    assert query("select user_id::bigint, city, _file_line from transactions order by 1") == [
        (1, "a\nb", 2),
        (2, "Lyon", 4),
        (3, city, 5),
        (4, "Lyon", after),
    ]
    assert [row[2:4] + row[5:7] for row in query(LEDGER)][1] == (5, after, 2, 0)
    with path.open("a") as file:
        file.write(texts[1].replace("Z,2,", "Z,5,"))
    land(path)
    assert query("select _file_line from transactions where user_id = '5'") == [(after + 1,)]


def test_a_quote_left_open_before_landed_lines_lands_them_once(land, query, tmp_path):
    path = tmp_path / "x.csv"

    def text(user: int, city: str = "Lyon") -> str:
        return f"{ID},2024-03-01T12:00:00Z,{user},1,{city}\n"

    head = "transaction_id,event_ts,user_id,amount,city\n"
    path.write_text(head + text(1, '"Lyon') + text(2) + text(3))
    land(path)
    with path.open("a") as file:
        file.write('"\n' + text(4) + text(5) + text(6, '"Lyon'))
    land(path)
    with path.open("a") as file:
        file.write(text(7))
    assert (
        land(path).rejected == 0
    )  # what is no record is not read again: it may be corrected by now
    found = query("select user_id::bigint, _file_line from transactions order by 1")
    assert found == [(2, 3), (3, 4), (4, 6), (5, 7), (7, 9)]
    assert query("select _file_line from rejects order by 1") == [(2,), (5,), (8,)]


def test_changed_content_is_refused_or_replaces(land, query, tmp_path):
    path, other = tmp_path / "x.jsonl", tmp_path / "y.jsonl"
    path.write_text(f"{line(user_id=1)}\n{line(user_id=2)}\n")
    land(path)
    path.write_text(f"{line(user_id=1)}\n{line(user_id=20)}\n{line(user_id=3)}\n")
    other.write_text(line(user_id=9))
    with pytest.raises(UserError, match=r"x.jsonl has changed.*\n.*--replace.*\n.*landed: 1"):
        land(path, other)
    assert query("select user_id::bigint from transactions order by 1") == [(1,), (2,), (9,)]

    assert land(path, replace=True).rows == {"transactions": 3, "files": 1}
    counted = (
        "select user_id::bigint from transactions t join files f"
        " using (_dlt_load_id, _file_checksum)"
        " where not exists (select 1 from files r where r.path = f.path and r.is_replacement"
        " and r._dlt_load_id > f._dlt_load_id) order by 1"
    )
    assert query(counted) == [(1,), (3,), (9,), (20,)]
    assert land(path).rows == {"transactions": 0, "files": 0}

    assert not list((tmp_path / "dlt").rglob("*.parquet"))  # nothing piles up

    path.write_text(f"{line(user_id=1)}\n{line(user_id=2)}\n")  # back to what it was
    assert land(path, replace=True).rows == {"transactions": 2, "files": 1}
    assert query(counted) == [(1,), (2,), (9,)]


def test_what_was_replaced_lands_from_where_it_has_moved_to(land, query, tmp_path):
    """As logs are rotated: the name goes on with other lines, the old ones have another name."""
    folder = tmp_path / "in"
    folder.mkdir()
    log = folder / "app.jsonl"
    log.write_text(f"{line(transaction_id='0' * 8 + ID[8:])}\n" * 2)
    land(folder)
    log.rename(folder / "app.1.jsonl")
    log.write_text(line())
    assert land(folder, replace=True).rows == {"transactions": 3, "files": 2}
    replaced = "select path, is_replacement from raw_transactions.files order by path"
    assert [(Path(path).name, is_new) for path, is_new in query(replaced)] == [
        ("app.1.jsonl", False),
        ("app.jsonl", False),
        ("app.jsonl", True),
    ]
    assert land(folder).rows == {"transactions": 0, "files": 0}


def test_a_load_counts_as_later_than_all_before(land, query, tmp_path, database):
    """Whatever the clock of the machine that ran the newest one said."""
    (tmp_path / "a.jsonl").write_text(line())
    (tmp_path / "b.jsonl").write_text(line(user_id=8))
    land(tmp_path / "a.jsonl")
    ahead = "update raw_transactions._dlt_loads set inserted_at = now() + interval '{}'"
    execute(database, ahead.format("1 hour"))
    with pytest.raises(UserError, match=r"clock is 3,[56]\d\d s behind.*\n.*Set the clock right"):
        land(tmp_path / "b.jsonl")
    execute(database, ahead.format("2 seconds"))
    assert land(tmp_path / "b.jsonl").rows == {"transactions": 1, "files": 1}
    by_load = "select load_id from raw_transactions._dlt_loads order by {}"
    assert query(by_load.format("inserted_at")) == query(by_load.format("load_id"))


def test_macintosh_line_ends_stop_a_file_and_no_other(land, query, tmp_path):
    mac, below, good = (tmp_path / name for name in ("mac.csv", "below.csv.gz", "good.csv"))
    text = f"transaction_id,event_ts,user_id,amount\n{ID},2024-03-01T12:00:00Z,7,1\n"
    good.write_text(text)
    mac.write_bytes((text + text.splitlines()[1]).replace("\n", "\r").encode())
    below.write_bytes(gzip.compress((text + "\r".join(text.splitlines()[1:] * 3)).encode()))
    with pytest.raises(UserError) as caught:
        land(mac, good, below)
    assert [line for line in caught.value.message.splitlines() if "line ends (" in line] == [
        f"{mac} has Macintosh line ends (CR alone).",
        f"{below} has Macintosh line ends (CR alone) on line 3.",
    ]
    assert caught.value.message.endswith("\nOther files have landed: 1.")
    assert query("select _file_name, lines_read from files") == [(str(good), 1)]
    assert query("select count(*) from transactions") == [(1,)]


def test_too_many_rejects_stop_a_file_and_no_other(land, query, tmp_path, monkeypatch):
    bad, good = tmp_path / "bad.jsonl", tmp_path / "good.jsonl"
    bad.write_text(f"{line()}\nx\n\ny\n")
    good.write_text(f"{line(user_id=8)}\nx\n")  # half: just not more than the share
    with pytest.raises(UserError, match=r"2 of 3 lines.*not JSON.*line 2") as caught:
        land(bad)
    assert "landed:" not in caught.value.message
    with pytest.raises(UserError, match=r"(?s)2 of 3 lines.*Other files have landed: 1"):
        land(bad, good)
    assert query("select user_id::bigint from transactions") == [(8,)]
    assert query("select distinct _file_name from rejects") == [(str(good),)]

    monkeypatch.setenv("SOURCES__TRANSACTIONS__MAX_REJECT_SHARE", "0.7")
    assert land(bad).rejected == 2
    monkeypatch.setenv("SOURCES__TRANSACTIONS__MAX_REJECT_SHARE", "lots")
    (tmp_path / "new.jsonl").write_text(f"{line(user_id=3)}\nx\n")
    with pytest.raises(UserError, match="max_reject_share"):
        land(tmp_path / "new.jsonl")


def test_what_the_reader_does_not_expect_stops_a_file_and_no_other(land, query, tmp_path):
    good, bad, more = (tmp_path / name for name in ("good.jsonl", "bad.parquet", "more.jsonl"))
    good.write_text(f"{line(user_id=8)}\n")
    more.write_text(f"{line(user_id=9)}\n")
    pq.write_table(pa.Table.from_pylist([GOOD | {"note": "x"}]), bad)
    bad.write_bytes(bad.read_bytes().replace(b"note", b"no\xff\xfe"))  # a name that is no text
    with pytest.raises(UserError) as caught:
        land(good, bad, more)
    first, *others = caught.value.message.splitlines()
    assert first.startswith(f"{bad} cannot be read (UnicodeDecodeError: ")
    assert len(others) == 2
    assert others[1] == "Other files have landed: 2."
    assert isinstance(caught.value.__cause__, UnicodeDecodeError)  # what --debug shows
    assert query("select user_id::bigint from transactions order by 1") == [(8,), (9,)]
    assert query("select _file_name from files order by 1") == [(str(good),), (str(more),)]


def test_an_unknown_number_may_have_any_number_of_digits(land, query, tmp_path):
    (tmp_path / "x.jsonl").write_text(raw(ticket="7" * 5_000))
    assert "kept in extra_fields: ticket." in land(tmp_path / "x.jsonl").notes[-1]
    assert query("select length(extra_fields::text) from transactions") == [(5_000 + 12,)]


def _many_lines(path: Path, good: int, bad: int) -> None:
    content = "".join(f"{line(user_id=number)}\n" for number in range(good)) + "x\n" * bad
    packed = path.suffix == ".gz"
    path.write_bytes(gzip.compress(content.encode())[:-9] if packed else content.encode())


@pytest.mark.parametrize("name", ["many.jsonl", "cut.jsonl.gz"])
def test_what_was_sent_of_a_file_that_is_refused_goes(land, query, tmp_path, monkeypatch, name):
    """Whether it is refused at its end, or cannot be read to its end."""
    monkeypatch.setattr(lines, "CHUNK_BYTES", 1 << 16)
    monkeypatch.setattr(settings, "HELD_ROWS", 500)
    sent = []
    write = Copy.write
    monkeypatch.setattr(
        Copy,
        "write",
        lambda copy, table, rows: sent.append(table) or write(copy, table, rows),
    )
    paths = [tmp_path / file for file in ("a.jsonl", name, "z.jsonl", "small.jsonl")]
    for path, good in zip(paths, (2_000, 2_000, 3_000, 3), strict=True):
        _many_lines(path, good, bad=2_001 if path.name == "many.jsonl" else 1)
    with pytest.raises(UserError) as caught:
        land(paths[1])
    assert "landed:" not in caught.value.message
    assert sent.count("transactions") > 1
    assert query("select count(*) from transactions") == [(0,)]
    assert query("select count(*) from _dlt_loads") == [(0,)]

    with pytest.raises(UserError, match="Other files have landed: 3"):
        land(*paths)
    assert query("select _file_name, count(*) from transactions group by 1 order by 1") == [
        (str(tmp_path / file), rows)
        for file, rows in (("a.jsonl", 2_000), ("small.jsonl", 3), ("z.jsonl", 3_000))
    ]
    assert query("select count(*) from rejects") == [(3,)]
    assert query("select count(*) from files") == [(3,)]
    assert query("select count(*) from _dlt_loads") == [(1,)]


def test_unknown_fields_are_counted_in_the_summary(land, tmp_path):
    (tmp_path / "x.jsonl").write_text(
        "\n".join(
            [*(line(device="ios") for _ in range(400)), line(), line(device="web", score=[1])]
        )
    )
    head = ",".join(settings.FIELDS[:4])
    (tmp_path / "y.csv").write_text(
        "\n".join([f"{head},note", *[f"{ID},2024-01-01T10:00:00Z,1,2.5,n"] * 2])
    )
    (tmp_path / "refused.jsonl").write_text(line(other=1) + "\n" + "x\n" * 5)
    paths = [tmp_path / name for name in ("x.jsonl", "y.csv")]
    assert (
        "403 rows have fields beyond the contract, kept in extra_fields: device, score, note."
        in (land(*paths).notes)
    )
    with pytest.raises(UserError):
        land(tmp_path / "refused.jsonl")
    (tmp_path / "z.jsonl").write_text("\n".join(line(**{f"f{n}": 1}) for n in range(20)))
    [note] = land(tmp_path / "z.jsonl").notes
    assert note.endswith("f0, f1, f2, f3, f4, f5, f6, f7 and others.")
    (tmp_path / "plain.jsonl").write_text(line())
    assert land(tmp_path / "plain.jsonl").notes == []


@pytest.mark.parametrize("content", ["", "\n \n"], ids=["no byte", "blank lines"])
def test_an_empty_file_is_an_error_only_on_its_own(land, query, tmp_path, content):
    empty, good = tmp_path / "empty.jsonl", tmp_path / "good.jsonl"
    empty.write_text(content)
    with pytest.raises(UserError, match="is empty: nothing to land"):
        land(empty)
    good.write_text(line())
    assert f"{empty} is empty; skipped." in land(empty, good).notes
    assert [row[0] for row in query(LEDGER)] == [str(good)]


def test_paths_are_files_folders_and_globs(land, query, tmp_path):
    with pytest.raises(UserError, match=r"There is no file .*gone\.jsonl"):
        land(tmp_path / "gone.jsonl")
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(UserError, match="no file of transactions in"):
        land(folder)
    for number, name in enumerate(["c.csv", "a.jsonl", "b.jsonl.gz", "d.txt", "e.parquet"], 1):
        row = {**GOOD, "user_id": number}
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist([row]), folder / name)
        elif name.endswith(".csv"):
            values = ",".join(map(str, row.values()))
            (folder / name).write_text(",".join(row) + f"\n{values}\n")
        else:
            content = json.dumps(row).encode()
            (folder / name).write_bytes(gzip.compress(content) if ".gz" in name else content)
    report = land(f"{folder}/*.jsonl", folder, str(folder / "a.jsonl"))
    assert report.rows == {"transactions": 4, "files": 4}
    assert query("select user_id::bigint, _file_name from transactions order by 1") == [
        (1, f"{folder}/c.csv"),
        (2, f"{folder}/a.jsonl"),
        (3, f"{folder}/b.jsonl.gz"),
        (5, f"{folder}/e.parquet"),
    ]
    assert query("select count(*) from _dlt_loads") == [(1,)]


def test_a_folder_is_read_by_the_names_in_it(land, query, tmp_path):
    """With the folders in it; in any case of letters; hidden files are not there yet."""
    folder = tmp_path / "in"
    names = (
        *("A.JSONL", "2024/03/d.jsonl", "year=2024/country=FR/part-0.csv", "_e.jsonl"),
        *(".b.jsonl", "c.txt", "year=2024/_SUCCESS", "_delta_log/0.json", ".tmp/f.jsonl"),
    )
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        row = GOOD | {"user_id": number}
        values = ",".join(map(str, row.values()))
        path.write_text(f"{','.join(row)}\n{values}\n" if "csv" in name else json.dumps(row))
    (folder / "2024" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "linked").symlink_to(folder / "2024" / "03", target_is_directory=True)
    report = land(folder)
    assert report.rows == {"transactions": 4, "files": 4}
    assert report.notes == [
        f"{folder}: 5 files are hidden or of another kind, and left out:"
        " .b.jsonl, .tmp/f.jsonl, _delta_log/0.json, ...",
        f"{folder}: what folders are named for does not land: year, country. If no column of the"
        " files says it, a mapping can (constant).",
    ]
    landed = {Path(name).name for (name,) in query("select _file_name from files")}
    assert landed == {"A.JSONL", "d.jsonl", "part-0.csv", "_e.jsonl"}


def test_a_file_named_like_the_sample_is_ones_own(land, tmp_path, database):
    """So that `marquee run` does not land the sample beside it."""
    file = tmp_path / "sample" / "transactions.jsonl"
    file.parent.mkdir()
    file.write_text(line())
    land(file)
    assert own_file(database, "transactions") == str(file)


def test_many_small_files_are_one_load(land, query, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(120):
        (folder / f"{number:03}.jsonl").write_text(f"{line(user_id=number)}\nx{number}\n")
    assert land(folder).rows == {"transactions": 120, "files": 120}
    assert query(
        "select count(*) from transactions join rejects using (_file_name, _file_checksum)"
        " where raw_text = 'x' || user_id"
    ) == [(120,)]
    assert query("select count(*), sum(lines_read - rows_landed - rows_rejected) from files") == [
        (120, 0)
    ]
    assert query("select count(*) from _dlt_loads") == [(1,)]


# A killed load

MOMENTS = {
    # where: (what is called, times it may pass, whether the kill comes before or after it)
    "while reading": ("ingestion.sources.transactions.formats.reader.Reader.batch", 2, "before"),
    "after the tables are made": ("dlt.pipeline.pipeline.Pipeline.sync_schema", 0, "after"),
    "before the first copy": ("adbc_driver_manager.dbapi.Cursor.adbc_ingest", 0, "before"),
    "after a copy": ("adbc_driver_manager.dbapi.Cursor.adbc_ingest", 1, "after"),
    "before it is listed": ("ingestion.sources.transactions.landing.copy.Copy._end", 0, "before"),
    "before the commit": ("adbc_driver_manager.dbapi.Connection.commit", 0, "before"),
    "after the commit": ("adbc_driver_manager.dbapi.Connection.commit", 0, "after"),
}


def _ingest_until(moment: str, path: Path, target: Target, folder: Path) -> None:
    """In a process of its own: land a file and die on the way, as by ``kill -9``."""
    import importlib

    name, passes, when = MOMENTS[moment]
    module, cls, method = name.rsplit(".", 2)
    owner = getattr(importlib.import_module(module), cls)
    original, seen = getattr(owner, method), Counter()

    def deadly(*args, **kwargs):
        seen["calls"] += 1
        deadly_call = seen["calls"] > passes
        if deadly_call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if deadly_call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, method, deadly)
    _ingest_in_small_steps(path, target, folder)


def _ingest_in_small_steps(path: Path, target: Target, folder: Path) -> None:
    lines.CHUNK_BYTES = 1 << 18
    settings.HELD_ROWS = 500
    pipeline = make_pipeline("transactions", target, folder)
    transactions.ingest([path], target, pipeline=pipeline)


def _ingest_interruptibly(path: Path, target: Target, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind &
    _ingest_in_small_steps(path, target, folder)


@pytest.fixture(scope="module")
def processes():
    """Makes processes quickly: from one that has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            __name__,
            "dlt.destinations.impl.postgres.postgres",
            "adbc_driver_manager.dbapi",
            "duckdb",
            "pandas",
        ]
    )
    return context


@pytest.fixture
def kill(processes, database: Target, tmp_path: Path) -> Callable[[str, Path], None]:
    """``ingest`` in a process that is killed at a moment; returns when the server has seen it."""

    def run(moment: str, path: Path) -> None:
        arguments = (moment, path, database, tmp_path / "dlt")
        process = processes.Process(target=_ingest_until, args=arguments)
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        deadline = time.monotonic() + 10
        while _others_connected(database):
            assert time.monotonic() < deadline, "the killed process is still connected"
            time.sleep(0.05)

    return run


def _others_connected(target: Target) -> int:
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid()"
        )
        return cursor.fetchone()[0]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_load_is_completed_by_the_next(land, query, tmp_path, kill, moment):
    path = tmp_path / "made.jsonl"
    counts = generate(4_000, 11, path)
    kill(moment, path)

    other = tmp_path / "other.jsonl"
    other.write_text(line())
    report = land(path, other)
    assert report.rows["transactions"] <= counts["landed"] + 1
    rows = query(
        "select _file_line from transactions where _file_name like '%made.jsonl'"
        " union all select _file_line from rejects order by 1"
    )
    assert rows == [(number,) for number in range(1, 4_001)]
    assert query("select count(*) from transactions") == [(counts["landed"] + 1,)]
    assert sorted((Path(row[0]).name, *row[4:7]) for row in query(LEDGER)) == [
        ("made.jsonl", 4_000, counts["landed"], counts["rejected"]),
        ("other.jsonl", 1, 1, 0),
    ]
    assert query("select count(*) from _dlt_loads group by load_id having count(*) > 1") == []
    assert query(
        "select count(*) from transactions where _dlt_load_id not in"
        " (select load_id from _dlt_loads where status = 0)"
    ) == [(0,)]
    assert land(path, other).rows == {"transactions": 0, "files": 0}


def test_a_load_that_an_older_release_left_unlisted_is_completed(land, query, tmp_path, database):
    """Its rows were there before dlt listed it, and a kill could come between."""
    path, other = tmp_path / "made.jsonl", tmp_path / "other.jsonl"
    counts = generate(4_000, 11, path)
    land(path)
    with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("delete from raw_transactions._dlt_loads")
    path.unlink()
    other.write_text(line())
    report = land(other)
    assert report.rows == {"transactions": counts["landed"] + 1, "files": 2}
    assert report.rejected == counts["rejected"]
    assert "an earlier, killed run has been completed" in report.notes[0]
    assert query("select count(*) from transactions") == [(counts["landed"] + 1,)]
    assert query("select count(*), min(status), min(schema_name) from _dlt_loads") == [
        (2, 0, "transactions")
    ]


@pytest.mark.parametrize("moment", ["after a copy", "after the commit"])
def test_it_does_not_matter_if_dlts_folder_is_lost_too(land, query, tmp_path, kill, moment):
    path = tmp_path / "made.jsonl"
    counts = generate(4_000, 11, path)
    kill(moment, path)
    shutil.rmtree(tmp_path / "dlt")
    land(path)
    assert query("select count(*) from transactions") == [(counts["landed"],)]
    assert query("select load_id from _dlt_loads") == query("select _dlt_load_id from files")


def test_a_commit_that_is_under_way_is_waited_for(land, query, tmp_path, database):
    """The next run must not miss what a killed one has asked for at the last moment."""
    (tmp_path / "x.jsonl").write_text(line())
    land(tmp_path / "x.jsonl")
    insert = (
        "insert into raw_transactions.files"
        ' select (jsonb_populate_record(files, \'{"_dlt_load_id": "1.5"}\')).*'
        " from raw_transactions.files"
    )
    arguments = (database, "raw_transactions")
    with closing(database.connect()) as connection, ThreadPoolExecutor(1) as thread:
        connection.cursor().execute(insert)
        unlisted = thread.submit(ledger.unlisted, *arguments)
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        deadline = time.monotonic() + 10
        while query(waiting) == [(0,)] and not unlisted.done():
            assert time.monotonic() < deadline
        connection.commit()
        assert unlisted.result() == ["1.5"]


def test_an_interrupt_ends_a_load_that_waits_for_the_server(
    land, query, tmp_path, database, processes
):
    """Also a COPY that hangs, in its thread: Ctrl-C must not wait for it."""
    path = tmp_path / "made.jsonl"
    counts = generate(4_000, 11, path)
    (tmp_path / "x.jsonl").write_text(line())
    land(tmp_path / "x.jsonl")
    pipeline = (path, database, tmp_path / "dlt")
    with closing(database.connect()) as connection:
        connection.cursor().execute("lock table raw_transactions.transactions")
        process = processes.Process(target=_ingest_interruptibly, args=pipeline)
        process.start()
        deadline = time.monotonic() + 60
        copying = "select count(*) from pg_stat_activity where query ~ '^COPY'"
        while query(f"{copying} and wait_event_type = 'Lock'") == [(0,)]:
            assert process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        process.join(60)
        assert process.exitcode == 1
    assert query("select count(*) from transactions") == [(1,)]
    assert land(path).rows["transactions"] == counts["landed"]


@pytest.fixture
def small_disk(database: Target):
    """The database's tables come to a disk of 12 MB; returns what makes it larger."""
    if os.environ.get("MARQUEE_TEST_URL"):
        pytest.skip("the server's disk is not ours")
    folder = reachable_folder()
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        shutil.rmtree(folder)
        pytest.skip("mounting a small disk needs root")
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("show data_directory")
        owner = Path(cursor.fetchone()[0]).stat()
        os.chown(disk, owner.st_uid, owner.st_gid)
        cursor.execute(f"create tablespace small location '{disk}'")
        cursor.execute(f"alter database {database.dbname} set default_tablespace = small")
        try:
            yield lambda: subprocess.run(
                ["mount", "-o", "remount,size=200m", str(disk)], check=True
            )
        finally:
            cursor.execute("drop schema raw_transactions cascade")
            cursor.execute("drop tablespace small")
            subprocess.run(["umount", str(disk)], check=True)
            shutil.rmtree(folder)


def test_a_full_disk_of_the_server_loses_nothing(land, query, tmp_path, small_disk, monkeypatch):
    # this checkout's own embedded server has nothing to say of it
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))
    monkeypatch.setattr("ingestion.warehouse.state.STATE_DIR", tmp_path / "state")
    (tmp_path / "small.jsonl").write_text(line())
    land(tmp_path / "small.jsonl")
    counts = generate(100_000, 11, tmp_path / "big.jsonl")
    with pytest.raises(UserError, match="No space left on device") as caught:
        land(tmp_path / "big.jsonl")
    assert len(caught.value.message.splitlines()) == 2
    assert query("select count(*) from transactions") == [(1,)]
    small_disk()
    assert land(tmp_path / "big.jsonl").rows == {"transactions": counts["landed"], "files": 1}
    assert query("select count(*) from transactions") == [(counts["landed"] + 1,)]
    assert query("select count(*) from files") == [(2,)]


def test_a_warehouse_that_refuses_is_an_error_in_two_lines(
    land, query, tmp_path, database, monkeypatch
):
    monkeypatch.setenv("LOAD__RAISE_ON_MAX_RETRIES", "1")
    (tmp_path / "x.jsonl").write_text(line())
    land(tmp_path / "x.jsonl")
    with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("alter table raw_transactions.transactions rename to elsewhere")
    (tmp_path / "y.jsonl").write_text(line(user_id=8))
    with pytest.raises(UserError, match="did not take the load"):
        land(tmp_path / "y.jsonl")
    with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("alter table raw_transactions.elsewhere rename to transactions")
    report = land(tmp_path / "y.jsonl")
    assert report.rows == {"transactions": 1, "files": 1}
    assert query("select user_id::bigint from transactions order by 1") == [(7,), (8,)]


def test_a_second_load_at_the_same_time_is_refused(land, tmp_path, database):
    (tmp_path / "x.jsonl").write_text(line())
    with (
        one_at_a_time("transactions", database),
        pytest.raises(UserError, match=r"Another load of transactions is running .*, since \d{4}-"),
    ):
        land(tmp_path / "x.jsonl")
    assert land(tmp_path / "x.jsonl").rows["transactions"] == 1


def test_the_raw_tables_are_as_they_are_declared(land, query, tmp_path):
    (tmp_path / "x.jsonl").write_text(line())
    land(tmp_path / "x.jsonl")
    for table in tables.COLUMNS:
        made = query(
            "select attname::text, not attnotnull from pg_attribute"
            f" where attrelid = '{table}'::regclass and attnum > 0 order by attnum"
        )
        assert made == [(field.name, field.nullable) for field in tables.raw_schema(table)]
