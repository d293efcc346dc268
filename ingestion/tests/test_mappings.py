"""Files with columns, formats and words of their own, through a mapping into the facts."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from ingestion.cli import marquee
from ingestion.errors import UserError
from ingestion.pipeline import make_pipeline
from ingestion.sources import transactions
from ingestion.sources.transactions.formats import lines, reader
from ingestion.sources.transactions.inputs.files import LocalFile
from ingestion.sources.transactions.inputs.plan import open_file
from ingestion.sources.transactions.mapping.choose import find_mapping, shipped
from ingestion.sources.transactions.mapping.rules import MappedRules
from ingestion.sources.transactions.mapping.spec import parse_mapping
from ingestion.tests.built import Built
from ingestion.warehouse.target import Target

UTC = timezone.utc


def read(path: Path, mapping: str | None = None) -> tuple[list[dict], list[dict]]:
    """Rows and rejects of a file, by a mapping's text or name, or by the one that it fits."""
    file = open_file(LocalFile(str(path), path, str(path)))
    if mapping:
        is_text = "columns:" in mapping
        found = parse_mapping(mapping, "m.yml", "m") if is_text else find_mapping(mapping)
        file = dataclasses.replace(file, rules=MappedRules(found))
    rows, rejects = [], []
    with closing(reader.Reader(threads=1)) as files:
        for batch in files.read(file):
            rows += batch.rows.to_pylist()
            rejects += batch.rejects.to_pylist()
    return sorted(rows, key=lambda row: row["_file_line"]), rejects


def both_ways(path: Path, mapping: str | None, monkeypatch: pytest.MonkeyPatch) -> tuple:
    """The same, read by SQL where it can be and by Python alone; both agree."""
    found = []
    for few in (0, 1 << 60):
        monkeypatch.setattr(reader, "FEW", few)
        found.append(read(path, mapping))
    assert found[0] == found[1]
    return found[0]


# Any valid file, mapping and format

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
FORMATS = (
    "%d.%m.%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%Y-%m-%d %H:%M:%S", "%d %b %Y %H:%M:%S",
    "%Y%m%d %H%M%S", "%d-%m-%y %H:%M:%S", "%B %d, %Y %H:%M:%S", None, "seconds", "milliseconds",
)  # fmt: skip


@dataclass
class Written:
    """A file that is made up, its mapping, and what it says."""

    path: Path
    mapping: str
    rows: list[tuple[str | None, datetime, str, Decimal, str]]


class Style:
    """How a made-up file writes its records, chosen at random."""

    def __init__(self, dice: random.Random) -> None:
        self.zone, self.form = ZoneInfo(dice.choice(ZONES)), dice.choice(FORMATS)
        self.decimal = dice.choice([".", ","])
        self.thousands = dice.choice([None, *sorted({".", ",", " ", "'"} - {self.decimal})])
        self.symbol = dice.choice([None, "€", "USD", "$"])
        self.negative = dice.choice(["-{}", "({})", "{}-"])
        self.signs = dice.choice(["debit_credit", "positive", "negative", "direction"])
        self.has_key = dice.random() < 0.3
        self.ident, self.at = dice.choice(["Ref No", "交易号"]), dice.choice(["When", "Datum"])
        self.who = dice.choice(["Holder", "客户"])

    def number(self, value: Decimal, is_negative: bool) -> str:
        text = f"{value:,.2f}".replace(",", "\0").replace(".", self.decimal)
        text = text.replace("\0", self.thousands or "")
        text = f"{self.symbol} {text}" if self.symbol == "USD" else text
        text = self.negative.format(text) if is_negative else text
        return f"{text} {self.symbol}" if self.symbol in ("€", "$") else text

    def moment(self, at: datetime) -> str:
        since = int(at.replace(tzinfo=self.zone).timestamp())
        units = {"seconds": since, "milliseconds": since * 1000}
        if self.form in units:
            return str(units[self.form])
        return at.strftime(self.form) if self.form else at.isoformat()

    def amounts(self, amount: Decimal, is_refund: bool) -> dict[str, str]:
        if self.signs == "debit_credit":
            text = self.number(amount, False)
            return {"Soll": "" if is_refund else text, "Haben": text if is_refund else ""}
        if self.signs == "direction":
            return {"Betrag": self.number(amount, False), "S/H": "H" if is_refund else "S"}
        is_negative = is_refund == (self.signs == "positive") and amount > 0
        return {"Betrag": self.number(amount, is_negative)}

    def mapping(self) -> str:
        amount = {"decimal": self.decimal, "refund_status": "REFUNDED"}
        amount |= {"thousands": self.thousands} if self.thousands else {}
        amount |= {"symbols": [self.symbol]} if self.symbol else {}
        amount |= {
            "debit_credit": {"debit": "Soll", "credit": "Haben"},
            "direction": {"from": "Betrag", "direction": "S/H", "refund_values": ["h"]},
        }.get(self.signs, {"from": "Betrag", "spending": self.signs})
        moment = {"from": ["absent", self.at], "timezone": self.zone.key}
        if self.form:
            moment["unit" if "%" not in self.form else "format"] = self.form
        columns = {
            "transaction_id": {"key": [self.ident, self.who]} if self.has_key else self.ident,
            "event_ts": moment,
            "user_id": self.who,
            "amount": amount,
            "status": {"from": "Stand", "values": {"OK": "APPROVED", "nope": "DECLINED"}},
            "currency": {"constant": "EUR"},
        }
        return yaml.safe_dump({"columns": columns}, allow_unicode=True)


def write(folder: Path, seed: int, count: int = 400, until: int = 2037) -> Written:
    """A file of random form, names, formats and values."""
    dice = random.Random(seed)
    style, records, rows = Style(dice), [], []
    kind = dice.choice(["csv", "csv", "jsonl", "parquet"])
    for number in range(count):
        day = dice.randint(1990, until), dice.randint(1, 12), dice.randint(1, 28)
        at = datetime(*day, dice.randint(4, 23), dice.randint(0, 59), dice.randint(0, 59))
        amount = Decimal(dice.choice([dice.randint(0, 99), dice.randint(0, 10**9)])) / 100
        is_refund = dice.random() < 0.2 and amount > 0
        number += 1_000 * seed  # noqa: PLW2901 - ids of each file are its own
        ident = dice.choice([f"{number:08}", f"tx_{number}", f"é{number}", f"a b {number}"])
        user = dice.choice(["007", f"cus_{number % 7}", "4532-xxxx"])
        state = dice.choice(["ok", "OK ", "Nope", "APPROVED"])
        note = dice.choice(["", "x", 'q"q', "a;b,c"])
        record = {style.ident: ident, style.at: style.moment(at), style.who: user, "Stand": state}
        records.append(record | {"Note": note} | style.amounts(amount, is_refund))
        words = {"ok": "APPROVED", "nope": "DECLINED"}
        status = "REFUNDED" if is_refund else words.get(state.strip().lower(), state)
        moment = at.replace(tzinfo=style.zone).astimezone(UTC)
        rows.append((None if style.has_key else ident, moment, user, amount, status))
    path = folder / f"x{seed}.{kind}"
    spell(path, records, dice)
    return Written(path, style.mapping(), rows)


def spell(path: Path, records: list[dict], dice: random.Random) -> None:
    """Write records; names of columns change their case and their blanks."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
        return
    names = {name: dice.choice([name, name.upper(), name.replace(" ", "_")]) for name in records[0]}
    records = [{names[name]: value for name, value in record.items()} for record in records]
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records))
        return
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]), delimiter=dice.choice(",;\t|"))
    writer.writeheader()
    writer.writerows(records)
    path.write_text(out.getvalue())


@pytest.mark.parametrize("seed", range(60))
def test_what_was_written_is_read(tmp_path, monkeypatch, seed):
    written = write(tmp_path, seed)
    rows, rejects = both_ways(written.path, written.mapping, monkeypatch)
    assert not rejects
    assert len({row["transaction_id"] for row in rows}) == len(rows)
    made = written.rows[0][0] is None
    assert [
        (None if made else r["transaction_id"], r["event_ts"], r["user_id"], r["amount"],
         r["status"].strip())
        for r in rows
    ] == written.rows  # fmt: skip


def test_the_quick_way_is_taken(tmp_path, monkeypatch):
    """Otherwise the test above compares Python with itself."""
    text = "columns: {transaction_id: a, event_ts: {from: b, format: '%d.%m.%Y', timezone:" + (
        " Europe/Berlin}, user_id: c, amount: {from: d, decimal: ',', spending: negative}}\n"
    )
    records = [
        f"{n};{n % 28 + 1:02}.02.2024;u{n};-{n % 900 + 1}.{n % 1000:03},50" for n in range(1, 2_000)
    ]
    (tmp_path / "x.csv").write_text("\n".join(["a;b;c;d", *records, ""]))
    judged = []
    monkeypatch.setattr(MappedRules, "row", lambda *found: judged.append(found))
    rows, _ = read(tmp_path / "x.csv", text)
    assert len(rows) == 1_999
    assert not judged


# What a mapping may say

HEAD = "id,when,who,much,note\n"
COLUMNS = "columns: {transaction_id: id, event_ts: when, user_id: who, amount: much}\n"


def one(folder: Path, monkeypatch: pytest.MonkeyPatch, mapping: str, record: str) -> tuple:
    (folder / "x.csv").write_text(HEAD + record + "\n")
    return both_ways(folder / "x.csv", mapping, monkeypatch)


@pytest.mark.parametrize(
    ("part", "given", "expected"),
    [
        ("timezone: Europe/Berlin", "2024-07-01T10:00:00", "2024-07-01T08:00:00"),
        ("timezone: Europe/Berlin", "2024-07-01T10:00:00Z", "2024-07-01T10:00:00"),
        ("timezone: Europe/Berlin", "2024-10-27T02:30:00", "2024-10-27T00:30:00"),  # the first
        ("timezone: Europe/Berlin", "2024-03-31T02:30:00", None),  # no such time
        ("format: '%d/%m/%Y'", "03/04/2024", "2024-04-03T00:00:00"),
        ("format: '%m/%d/%Y'", "03/04/2024", "2024-03-04T00:00:00"),
        ("format: '%m/%d/%Y'", "3/4/2024", "2024-03-04T00:00:00"),
        ("format: '%m/%d/%Y'", "31/04/2024", None),
        ("format: '%d.%m.%Y'", "30.02.2024", None),
        ("format: ['%d.%m.%Y', '%Y-%m-%d']", "2024-02-29", "2024-02-29T00:00:00"),
        ("format: '%Y-%m-%dT%H:%M:%S%z'", "2024-02-29T10:00:00+0130", "2024-02-29T08:30:00"),
        ("unit: seconds", "1709294400", "2024-03-01T12:00:00"),
        ("unit: seconds", "1709294400.25", "2024-03-01T12:00:00.250000"),
        ("unit: milliseconds", "1709294400001", "2024-03-01T12:00:00.001000"),
        ("unit: microseconds", "1709294400000001", "2024-03-01T12:00:00.000001"),
        ("unit: nanoseconds", "1709294400000001999", "2024-03-01T12:00:00.000001"),
        ("unit: seconds", "-1", "1969-12-31T23:59:59"),
        ("unit: seconds", "99999999999999999", None),
        ("unit: seconds", "soon", None),
        ("unit: hours, origin: '2024-01-01', timezone: Asia/Tokyo", "25", "2024-01-01T16:00:00"),
        ("unit: days, origin: '1899-12-30'", "45000.5", "2023-03-15T12:00:00"),
        ("timezone_from: note", "2024-07-01T10:00:00", "2024-07-01T17:00:00"),
    ],
)
def test_times(tmp_path, monkeypatch, part, given, expected):
    mapping = COLUMNS.replace("event_ts: when", f"event_ts: {{from: when, {part}}}")
    rows, rejects = one(tmp_path, monkeypatch, mapping, f"a,{given},u,1,PDT")
    if expected is None:
        assert [reject["reason_code"] for reject in rejects] == ["bad_timestamp"]
    else:
        assert rows[0]["event_ts"] == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("part", "given", "expected"),
    [
        ("decimal: ','", "1.234", "1234"),
        ("decimal: '.'", "1.234", "1.234"),
        ("decimal: '.', thousands: ','", '"1,00,000.50"', "100000.50"),
        ("decimal: '.'", "(12.50)", "-12.50"),
        ("decimal: '.'", "12.50-", "-12.50"),
        ("decimal: '.'", "+12.50", "12.50"),
        ("decimal: '.'", "\u221212.50", "-12.50"),
        ("decimal: '.', symbols: [$]", "-$12.50", "-12.50"),
        ("decimal: '.', symbols: [$]", "$-12.50", "-12.50"),
        ("decimal: '.', symbols: [$]", "($ 12.50)", "-12.50"),
        ("symbols: [eur]", "12.50 EUR", "12.50"),
        ("decimal: '.'", "12.50 EUR", None),
        ("decimal: '.'", "--1", None),
        ("decimal: '.'", "(1", None),
        ("decimal: '.'", "", None),
        ("spending: negative", "-12.50", "12.50"),
        ("spending: negative", "12.50", "-12.50"),
        ("spending: negative, refund_status: REFUNDED", "12.50", "12.50"),
        ("spending: negative", "0", "0"),
        ("direction: note, refund_values: [cr]", "5", "5"),
        ("direction: note, refund_values: [DR]", "5", "-5"),
        ("divide_by: 100", "1250", "12.50"),
        ("divide_by: 100", "12.5", "0.125"),
        ("divide_by: 1000", "0.05", None),
        ("decimal: '.'", "100000000000000", None),
    ],
)
def test_amounts(tmp_path, monkeypatch, part, given, expected):
    mapping = COLUMNS.replace("amount: much", f"amount: {{from: much, {part}}}")
    rows, rejects = one(tmp_path, monkeypatch, mapping, f"a,2024-03-01T12:00:00Z,u,{given},DR")
    if expected is None:
        assert rejects[0]["reason_code"] in ("bad_amount", "missing_field")
    else:
        assert rows[0]["amount"] == Decimal(expected)


def test_a_mark_that_the_mapping_leaves_open_is_the_files(tmp_path, monkeypatch):
    (tmp_path / "x.csv").write_text(
        HEAD.replace(",", ";") + "".join(
            f"{n};2024-03-01T12:00:00Z;u;€ {text};\n" for n, text in enumerate(("1.000", "2,5"))
        )
    )  # fmt: skip
    mapping = COLUMNS.replace("amount: much", "amount: {from: much, symbols: [€]}")
    rows, _ = both_ways(tmp_path / "x.csv", mapping, monkeypatch)
    assert [row["amount"] for row in rows] == [Decimal(1000), Decimal("2.5")]


def test_columns_that_a_mapping_does_not_use_are_kept(tmp_path, monkeypatch):
    mapping = COLUMNS.replace("transaction_id: id", "transaction_id: {key: [id, who, note]}")
    rows, _ = one(tmp_path, monkeypatch, mapping, "7,2024-03-01T12:00:00Z,u,1,hello")
    assert json.loads(rows[0]["extra_fields"]) == {"id": "7", "note": "hello"}


def test_nested_fields_of_json(tmp_path, monkeypatch):
    record = {"id": "ch_1", "created": 1709294400, "amount": 1250, "paid": True,
              "customer": {"id": "cus_1"}, "card": {"brand": "visa"}}  # fmt: skip
    (tmp_path / "x.jsonl").write_text(json.dumps(record))
    mapping = (
        "columns: {transaction_id: id, event_ts: {from: created, unit: seconds}, user_id:"
        " customer.id, amount: {from: amount, divide_by: 100}, payment_method: card.brand,"
        " status: {from: paid, values: {'true': APPROVED, 'false': DECLINED}}}"
    )
    rows, rejects = both_ways(tmp_path / "x.jsonl", mapping, monkeypatch)
    assert not rejects
    found = rows[0]
    assert (found["user_id"], found["amount"]) == ("cus_1", Decimal("12.5"))
    assert (found["status"], found["payment_method"]) == ("APPROVED", "visa")


def test_typed_columns_of_parquet(tmp_path, monkeypatch):
    table = pa.table({
        "id": pa.array([1, 2], pa.int64()), "when": pa.array([19_000, 19_001], pa.date32()),
        "who": [1.0, 2.5], "much": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
        "is_fraud": [True, False],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "x.parquet")
    mapping = COLUMNS.replace("when", "{from: when, format: '%Y-%m-%d'}")
    rows, rejects = both_ways(tmp_path / "x.parquet", mapping, monkeypatch)
    assert [(r["transaction_id"], r["user_id"], r["amount"]) for r in rows] == [
        ("1", "1", Decimal("1.5"))
    ]
    assert rows[0]["event_ts"] == datetime(2022, 1, 8, tzinfo=UTC)
    assert [r["reason_code"] for r in rejects] == ["bad_user_id"]


def test_equal_rows_are_told_apart_and_keep_their_ids(tmp_path, monkeypatch):
    """However the file is cut into blocks; and a file that grows counts what has landed."""
    mapping = COLUMNS.replace("transaction_id: id", "transaction_id: {key: [when, who, much]}")
    dice = random.Random(1)
    records = [
        f",2024-03-01T12:00:0{dice.randint(0, 3)}Z,u,{dice.choice(['1', ' 1', '1.0', '2'])},"
        for _ in range(3_000)
    ]
    path, found = tmp_path / "x.csv", []
    path.write_text(HEAD + "\n".join(records) + "\n")
    for size in (500, 20_000, 8 << 20):
        monkeypatch.setattr(lines, "CHUNK_BYTES", size)
        found.append(both_ways(path, mapping, monkeypatch)[0])
    assert found[0] == found[1] == found[2]
    assert len({row["transaction_id"] for row in found[0]}) == 3_000
    assert sum("-" not in row["transaction_id"] for row in found[0]) == 16


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "m.yml has no keys."),
        ("columns: [", "m.yml, line 1: "),
        ("colums: {}", "m.yml, line 1: colums: there is no such key.\nThe keys here are: desc"),
        ("description: x\ncolumns:\n  amount: a\n", "m.yml, line 2: columns: transaction_id"),
        (COLUMNS.replace("}", ", amout: x}"), "m.yml, line 1: columns.amout: there "),
        (COLUMNS.replace("}", ", amount: x}"), "m.yml, line 1: the key amount is there twice."),
        (COLUMNS.replace("much", "{from: much, decimal: ;}"),
         "m.yml, line 1: columns.amount.decimal: ';' is not known.\nChoose: ., ,."),
        (COLUMNS.replace("much", "{debit: much}"), "m.yml, line 1: columns.amount: debit and"),
        (COLUMNS.replace("much", "{from: much, direction: x}"), "m.yml, line 1: columns.amount: "),
        (COLUMNS.replace("much", "{from: much, decimal: '.', thousands: '.'}"),
         "m.yml, line 1: columns.amount.thousands: this is no mark between groups."),
        (COLUMNS.replace("when", "{from: when, format: '%d'}"), None),
        (COLUMNS.replace("when", "{from: when, format: '?'}"), "m.yml, line 1: columns.event_ts."),
        (COLUMNS.replace("when", "{from: when, format: '%Q'}"), "m.yml, line 1: columns.event_ts."),
        (COLUMNS.replace("when", "{from: when, timezone: Mars}"),
         "m.yml, line 1: columns.event_ts.timezone: there is no time zone Mars.\nName it as IANA"),
        (COLUMNS.replace("when", "{from: when, unit: weeks}"), "m.yml, line 1: columns.event_ts.u"),
        (COLUMNS.replace("when", "{from: when, origin: '2024'}"), "m.yml, line 1: columns.event"),
        (COLUMNS.replace("when", "{from: when, join: [a]}"), "m.yml, line 1: columns.event_ts: "),
        (COLUMNS.replace("who", "{from: who, constant: x}"), "m.yml, line 1: columns.user_id: "),
        (COLUMNS.replace("who", "{key: [who]}"), "m.yml, line 1: columns.user_id.key: "),
        (COLUMNS + "skip_lines: ['(']\n", "m.yml, line 2: skip_lines: '(' is no "),
    ],
)  # fmt: skip
def test_a_mapping_that_is_wrong_names_line_and_key(text, said):
    if said is None:
        parse_mapping(text, "m.yml", "m")
        return
    with pytest.raises(UserError) as caught:
        parse_mapping(text, "m.yml", "m")
    assert caught.value.message.startswith(said)
    assert len(caught.value.message.splitlines()) == 2


# What lands


@pytest.fixture
def land(database: Target, tmp_path: Path) -> Callable:
    def ingest(*paths: Path, mapping: str | None = None, replace: bool = False):
        found = find_mapping(mapping) if mapping else None
        pipeline = make_pipeline("transactions", database, tmp_path / "dlt")
        return transactions.ingest(
            paths, database, mapping=found, replace=replace, pipeline=pipeline
        )

    return ingest


@pytest.fixture
def query(database: Target) -> Callable[[str], list[tuple]]:
    def run(text: str) -> list[tuple]:
        with closing(database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set search_path to raw_transactions; set timezone to 'UTC'")
            cursor.execute(text)
            return cursor.fetchall()

    return run


def test_a_changed_mapping_lands_the_file_anew_when_asked(land, query, tmp_path):
    path, mapping = tmp_path / "x.csv", tmp_path / "m.yml"
    path.write_text(HEAD + "a,2024-03-01T12:00:00Z,u,1,\nb,2024-03-01T12:00:00Z,u,2,\n")
    mapping.write_text(COLUMNS)
    report = land(path, mapping=str(mapping))
    assert f"{path} is read by the mapping m." in report.notes
    assert "has landed before" in land(path, mapping=str(mapping)).notes[0]
    assert land(path).notes[0].endswith("none does now: name it with --mapping.")
    mapping.write_text("# a comment is no change\n" + COLUMNS)
    assert land(path, mapping=str(mapping)).notes[0].endswith("skipped.")

    mapping.write_text(COLUMNS.replace("much", "{from: much, divide_by: 100}"))
    report = land(path, mapping=str(mapping))
    assert report.rows["transactions"] == 0
    assert "Its mapping has changed since: --replace lands it anew." in report.notes[0]
    with path.open("a") as file:
        file.write("c,2024-03-01T12:00:00Z,u,3,\n")
    with pytest.raises(UserError, match="by another mapping"):
        land(path, mapping=str(mapping))
    assert land(path, mapping=str(mapping), replace=True).rows["transactions"] == 3
    assert query("select amount from transactions order by _dlt_load_id, 1") == [
        (Decimal(n),) for n in ("1", "2", "0.01", "0.02", "0.03")
    ]
    assert query("select mapping, is_replacement from files order by _dlt_load_id") == [
        ("m", False), ("m", True)
    ]  # fmt: skip
    assert query("select count(distinct mapping_checksum) from files") == [(2,)]


def test_a_file_with_made_ids_grows(land, query, tmp_path):
    path, mapping = tmp_path / "x.csv", tmp_path / "m.yml"
    mapping.write_text(COLUMNS.replace("transaction_id: id", "transaction_id: {key: [who, much]}"))
    record = ",2024-03-01T12:00:00Z,u,1,\n"
    path.write_text(HEAD + record * 2 + record[:-9])
    land(path, mapping=str(mapping))
    path.write_text(HEAD + record * 5)
    assert land(path, mapping=str(mapping)).rows["transactions"] == 3
    found = query("select substr(transaction_id, 34) from transactions order by _file_line")
    assert [each for (each,) in found] == ["", "-2", "-3", "-4", "-5"]


def test_rejects_of_a_mapped_file_are_corrected(land, query, database, tmp_path):
    path, mapping = tmp_path / "x.csv", tmp_path / "m.yml"
    path.write_text(HEAD + "a,01.03.2024,u,1,\nb,31.02.2024,u,1.234,\nc,02.03.2024,u,4,\n")
    columns = COLUMNS.replace("when", "{from: when, format: '%d.%m.%Y'}")
    mapping.write_text(columns.replace("much", "{from: much, decimal: ','}"))
    land(path, mapping=str(mapping))
    mapping.unlink()  # what has landed does not hang on it
    warehouse = Built(database, tmp_path)
    warehouse.write_profile()
    warehouse.marquee("rejects", "export", str(tmp_path / "out.txt"))
    out = tmp_path / "out.txt"
    out.write_text(out.read_text().replace("31.02.2024", "29.02.2024"))
    warehouse.marquee("rejects", "replay", str(out))
    assert query("select transaction_id, event_ts::date::text from transactions order by 1") == [
        ("a", "2024-03-01"), ("b", "2024-02-29"), ("c", "2024-03-02")
    ]  # fmt: skip


# What a file suggests


def suggest(*args: object) -> str:
    done = CliRunner().invoke(marquee, ["ingest", "transactions", *map(str, args), "--suggest"])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    ("days", "form"),
    [
        (["03/04/2024", "13/04/2024"], "%d/%m/%Y"),
        (["03/04/2024", "04/13/2024"], "%m/%d/%Y"),
        (["03/04/2024", "05/06/2024"], "?"),
        (["03.04.2024", "05.06.2024"], "%d.%m.%Y"),
        (["2024-04-03", "2024-06-05"], "%Y-%m-%d"),
    ],
)
@pytest.mark.parametrize("far", [False, True])
def test_the_whole_file_says_how_days_are_written(tmp_path, days, form, far):
    """Also a value that is far behind the head."""
    days = [days[0]] * (3_000 if far else 1) + days[1:]
    records = [f"a{n},{day},u,{n}.50,\n" for n, day in enumerate(days)]
    (tmp_path / "x.csv").write_text("id,date,customer,amount,note\n" + "".join(records))
    said = suggest(tmp_path / "x.csv")
    found = yaml.safe_load(said.split("# ")[0])["columns"]
    assert found["event_ts"]["format"] == form
    assert ("event_ts: 03/04/2024 can be read in several ways" in said) == (form == "?")


@pytest.mark.parametrize(
    ("amounts", "decimal"),
    [
        (["1.000", "2.5"], "."),
        (["1.000", "2,5"], ","),
        (["1.000", "2.000"], "?"),
        (["1", "2"], None),
        (["€ 1.000", "€ 2,50"], ","),
    ],
)
def test_the_whole_file_says_how_amounts_are_written(tmp_path, amounts, decimal):
    records = [f"a{n};2024-03-01;u;{text};\n" for n, text in enumerate(amounts)]
    (tmp_path / "x.csv").write_text("id;date;customer;amount;note\n" + "".join(records))
    found = yaml.safe_load(suggest(tmp_path / "x.csv").split("# ")[0])["columns"]["amount"]
    assert (None if isinstance(found, str) else found.get("decimal")) == decimal


def test_a_suggestion_is_saved_and_lands(land, query, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text(
        "Txn Id,Created At,Customer Id,Total,Payee,State\n"
        "t-1,2024-03-01 10:00:00,c1,10.50,Cafe,Success\n"
        "t-2,2024-03-01 11:00:00,c2,3.00,Bar,Failed\n"
        "t-3,2024-03-01 12:00:00,c2,4.00,Bar,Odd\n"
    )
    said = suggest("x.csv", "--save")
    assert "# - status: Odd is not known." in said
    assert "transaction_id t-1, event_ts 2024-03-01T10:00:00+00:00, user_id c1, amount 10.5" in said
    assert "Land it: marquee ingest transactions x.csv --mapping x.yml" in said
    land(tmp_path / "x.csv", mapping="x.yml")
    assert query("select transaction_id, user_id, amount, merchant, status from transactions") == [
        ("t-1", "c1", Decimal("10.5"), "Cafe", "APPROVED"),
        ("t-2", "c2", Decimal(3), "Bar", "DECLINED"),
        ("t-3", "c2", Decimal(4), "Bar", "Odd"),
    ]
    done = CliRunner().invoke(marquee, ["ingest", "transactions", "x.csv", "--suggest", "--save"])
    assert done.exit_code == 1
    assert "x.yml is there already." in done.output


# The mappings that are shipped, to the marts

SHAPES: dict[str, str] = {
    "stream_producer": "".join(
        json.dumps({"transaction_id": f"00000000-0000-4000-8000-{n:012}", "timestamp": at,
                    "customer_id": f"C{n % 3}", "amount": n + 0.25, "currency": "EUR",
                    "merchant": "Fnac", "status": status, "payment_method": "card"}) + "\n"
        for n, (at, status) in enumerate(
            [("2024-03-01T10:00:00.123456", "SUCCESS"), ("2024-03-01T11:00:00+00:00", "FAILED"),
             ("2024-03-02T10:00:00Z", "PENDING"), ("2024-03-02T10:00:00Z", "SUCCESS")])
    ),
    "stripe_charges":
        "id,Created (UTC),Amount,Amount Refunded,Currency,Captured,Customer ID,Status,Description\n"
        "ch_1,2024-03-01 10:00:00,12.50,0.00,eur,TRUE,cus_1,Paid,Order 1\n"
        "ch_2,2024-03-01 11:00:00,\"1,012.50\",0.00,eur,TRUE,,Failed,\"Order, 2\"\n"
        "ch_3,2024-03-01 12:00:00,7.00,7.00,usd,TRUE,cus_2,Refunded,\n",
    "stripe_balance":
        "balance_transaction_id,created_utc,currency,gross,fee,net,reporting_category,customer_id,"
        "description\n"
        "txn_1,2024-03-01 10:00:00,eur,20.00,0.50,19.50,charge,cus_1,Order 1\n"
        "txn_2,2024-03-02 10:00:00,eur,-5.00,0.00,-5.00,refund,cus_1,Refund\n"
        "txn_3,2024-03-03 10:00:00,eur,-14.50,0.00,-14.50,payout,,Payout\n",
    "paypal_activity":
        '"Date","Time","TimeZone","Name","Type","Status","Currency","Gross","Fee","Net",'
        '"From Email Address","Transaction ID"\n'
        '"03/01/2024","23:30:00","PST","Shop","Express Checkout Payment","Completed","USD",'
        '"-1,020.00","0.00","-1,020.00","a@example.com","9AB"\n'
        '"07/01/2024","10:00:00","PDT","Shop","Payment Refund","Completed","USD","20.00","0.00",'
        '"20.00","s@example.com","9AC"\n'
        '"07/01/2024","10:00:00","PDT","","General Currency Conversion","Completed","EUR","5.00",'
        '"0.00","5.00","","9AD"\n',
    "card_fraud":
        ",trans_date_trans_time,cc_num,merchant,category,amt,first,city,trans_num,is_fraud\n"
        "0,2019-01-01 00:00:18,2703186189652095,fraud_Rippin,misc_net,4.97,Jenn,Moravian Falls,"
        "0b242abb623afc578575680df30655b9,0\n"
        "1,2019-01-01 00:00:44,630423337322,fraud_Heller,grocery_pos,107.23,Steph,Orient,"
        "1f76529f8574734946361c461b024d99,1\n",
    "paysim":
        "step,type,amount,nameOrig,oldbalanceOrg,newbalanceOrig,nameDest,oldbalanceDest,"
        "newbalanceDest,isFraud,isFlaggedFraud\n"
        "1,PAYMENT,9839.64,C1231006815,170136.0,160296.36,M1979787155,0.0,0.0,0,0\n"
        "1,PAYMENT,9839.64,C1231006815,170136.0,160296.36,M1979787155,0.0,0.0,0,0\n"
        "743,TRANSFER,6311.28,C1529008245,6311.28,0.0,C1881841831,0.0,0.0,1,0\n",
    "bank_eu":
        "Buchungsdatum;Valutadatum;Verwendungszweck;Soll;Haben;Währung\n"
        "01.02.2024;01.02.2024;REWE Markt;12,50;;EUR\n"
        "31.03.2024;31.03.2024;Miete;1.234,00 €;;EUR\n"
        "31.03.2024;31.03.2024;Erstattung;;20,00;EUR\n"
        "Saldo;;;;1.000,00;EUR\n",
    "bank_us":
        "Transaction Date,Post Date,Description,Category,Type,Amount,Memo\n"
        "03/04/2024,03/05/2024,STARBUCKS,Food & Drink,Sale,-4.95,\n"
        "3/14/2024,03/15/2024,AMZN,Shopping,Return,\"1,020.00\",\n"
        "03/14/2024,03/15/2024,Payment Thank You,,Payment,500.00,\n"
        "11/03/2024,11/04/2024,GAS,,Sale,($12.00),\n",
}  # fmt: skip
# File: rows and sum of the amounts of the facts, and of the approved ones, by hand.
SUMS = {
    "stream_producer": (4, "7.00", "3.50"),
    "stripe_charges": (3, "1032.00", "12.50"),
    "stripe_balance": (2, "25.00", "20.00"),
    "paypal_activity": (2, "1040.00", "1020.00"),
    "card_fraud": (2, "112.20", "112.20"),
    "paysim": (3, "25990.56", "25990.56"),
    "bank_eu": (3, "1266.50", "1246.50"),
    "bank_us": (3, "1036.95", "16.95"),
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    for name, text in SHAPES.items():
        kind = "jsonl" if text.startswith("{") else "csv"
        (folder / f"{name}.{kind}").write_text(text)
    return folder


def test_each_shipped_mapping_has_a_shape():
    assert {mapping.name for mapping in shipped()} == set(SHAPES) == set(SUMS)


def by_itself(name: str) -> bool:
    return bool(find_mapping(name).applies_to)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_known_by_its_columns(shapes, monkeypatch, name):
    (path,) = shapes.glob(f"{name}.*")
    rows, rejects = both_ways(path, None if by_itself(name) else name, monkeypatch)
    assert (len(rows), rejects) == (SUMS[name][0], [])
    assert "fits the mapping" in suggest(path) or not by_itself(name)


@pytest.fixture
def filled(database: Target, tmp_path: Path) -> Built:
    warehouse = Built(database, tmp_path)
    warehouse.write_profile()
    warehouse.dbt("seed")
    return warehouse


def test_all_shapes_and_made_up_files_reach_the_facts(filled, shapes, tmp_path):
    """Amounts, times and ids of the facts are those that were written."""
    for name in SHAPES:
        (path,) = shapes.glob(f"{name}.*")
        mapping = () if by_itself(name) else ("--mapping", name)
        filled.marquee("ingest", "transactions", str(path), *mapping)
    expected = {}
    for seed in range(100, 106):
        written = write(tmp_path, seed, count=60, until=2023)
        (tmp_path / "m.yml").write_text(written.mapping)
        filled.marquee(
            "ingest", "transactions", str(written.path), "--mapping", str(tmp_path / "m.yml")
        )
        expected[str(written.path)] = sorted(row[1:4] for row in written.rows)
    filled.dbt(
        *("build", "--select", "+fct_transactions", "--exclude-resource-type", "test"),
        *(
            "--exclude-resource-type",
            "unit_test",
            "--vars",
            '{"transactions_max_amount": 100000000}',
        ),
    )
    facts = (
        "from marts.fct_transactions as facts inner join raw_transactions.files as files"
        " on files._file_checksum = facts.file_checksum"
    )
    found = filled.rows(
        f"select regexp_replace(_file_name, '.*/|\\..*', '', 'g'), count(*), sum(amount)::text,"
        f" sum(approved_amount)::text {facts} where mapping <> 'm' group by 1"
    )
    assert {name: (n, Decimal(a), Decimal(b)) for name, n, a, b in found} == {
        name: (n, Decimal(a), Decimal(b)) for name, (n, a, b) in SUMS.items()
    }
    rows = filled.rows(
        f"select _file_name, event_at, user_id, amount, transaction_id {facts} where mapping = 'm'"
    )
    for path, wanted in expected.items():
        found = [row[1:4] for row in rows if row[0] == path]
        assert sorted((at.replace(tzinfo=UTC), *others) for at, *others in found) == wanted
