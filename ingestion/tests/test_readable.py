"""Files that are not lines of UTF-8 yet: other encodings, archives, JSON documents, envelopes."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import zipfile
from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.errors import UserError
from ingestion.pipeline import LoadReport, make_pipeline
from ingestion.sources import transactions
from ingestion.sources.transactions.formats import lines, reader
from ingestion.sources.transactions.inputs import json_documents, prepare, source_file
from ingestion.tests.conftest import query_of
from ingestion.warehouse.target import Target

NAMES = ("transaction_id", "event_ts", "user_id", "amount", "city")
CITIES = ("Orléans", "Zürich", "København")


def row(user: int) -> dict:
    values = (f"0b9f3c1e-5a4d-4c3b-9f2e-{user:012}", "2024-03-01T12:00:00Z", user, 12.5)
    return dict(zip(NAMES, (*values, CITIES[user % 3]), strict=True))


def jsonl(*users: int) -> str:
    return "".join(json.dumps(row(user), ensure_ascii=False) + "\n" for user in users)


def csv(*users: int) -> str:
    rows = (",".join(map(str, row(user).values())) for user in users)
    return "\n".join([",".join(NAMES), *rows, ""])


def parquet(*users: int) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row(user) for user in users]), out)
    return out.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("folder")
        archive.writestr("__MACOSX/folder/._x.csv", b"of macOS")
        archive.writestr(f"folder/{name}", content)
    return out.getvalue()


def file_of(path: Path) -> source_file.SourceFile:
    size, checksum, _ = source_file.probe(path)
    look = source_file.look_at(path)
    return source_file.SourceFile(
        path.name,
        path,
        size,
        checksum,
        look.form,
        look.gzipped,
        look.is_plain,
        header=look.header,
        header_line=look.header_line,
    )


def read(folder: Path, name: str, content: str | bytes) -> tuple[list[dict], list[dict]]:
    """Rows and rejects of a file with that content; no copy of it may stay."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    copies = folder / "copies"
    copies.mkdir(exist_ok=True)
    rows, rejects = [], []
    try:
        with (
            prepare.prepared(file_of(folder / name), copies) as ready,
            closing(reader.Reader(threads=1)) as files,
        ):
            for batch in files.read(ready):
                rows += batch.rows.to_pylist()
                rejects += batch.rejects.to_pylist()
    finally:
        assert list(copies.iterdir()) == []
    return tuple(sorted(found, key=lambda row: row["_file_line"]) for found in (rows, rejects))


def users(rows: list[dict]) -> list[tuple]:
    return [(row["_file_line"], int(row["user_id"]), row["city"]) for row in rows]


def expected(first_line: int, *numbers: int) -> list[tuple]:
    return [(line, user, CITIES[user % 3]) for line, user in enumerate(numbers, first_line)]


@pytest.fixture
def land(database: Target, tmp_path: Path) -> Callable[..., LoadReport]:
    def ingest(*paths, **options) -> LoadReport:
        pipeline = make_pipeline("transactions", database, tmp_path / "dlt")
        return transactions.ingest(paths, database, pipeline=pipeline, **options)

    return ingest


# Encodings


@pytest.mark.parametrize("chunk", [7, 1 << 20])
@pytest.mark.parametrize("form", [csv, jsonl])
@pytest.mark.parametrize(
    "encoding",
    [
        *("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig"),
        "utf-16-be with a mark",
    ],
)
def test_utf_16_and_32_are_told_by_mark_or_zeros(tmp_path, monkeypatch, encoding, form, chunk):
    monkeypatch.setattr(prepare, "CHUNK_BYTES", chunk)
    mark, encoding = ("\ufeff" if "with" in encoding else ""), encoding.split()[0]
    content = f"{mark}{form(1, 2, 3)}".replace("\n", "\r\n").encode(encoding)
    rows, rejects = read(tmp_path, f"x.{form.__name__}", content)
    assert (users(rows), rejects) == (expected(2 if form is csv else 1, 1, 2, 3), [])
    rows, _ = read(tmp_path, "named otherwise", content)
    assert users(rows) == expected(2 if form is csv else 1, 1, 2, 3)


@pytest.mark.parametrize("form", [csv, jsonl])
def test_half_a_character_of_utf_16_costs_its_line(tmp_path, form):
    content = form(1, 2, 3).encode("utf-16-le").replace("ø".encode("utf-16-le"), b"\x00\xd8")
    rows, [reject] = read(tmp_path, f"x.{form.__name__}", content)
    assert [row["user_id"] for row in rows] == ["1", "3"]
    assert reject["reason_code"] in ("bad_text", "not_json")


def test_a_file_that_changes_while_it_is_made_plain_is_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(csv(1), "utf-16")
    file = file_of(path)
    path.write_text(csv(1, 2), "utf-16")
    with pytest.raises(UserError, match="was changed"), prepare.prepared(file, tmp_path):
        pass


WESTERN = (  # as spreadsheets of the West write them
    *("Orléans", "Épicerie", "Müller", "« École »", "l\u2019été…", "“À la carte”", "München"),
    *("Straße", "ÄÖÜ GmbH", "CRÉÉE", "NAÏF", "Ærø", "Tromsø", "Nº 5", "Mª", "España", "¿Qué?"),
    *("¡Olé!", "25°C", "5 m²", "3 m³", "km²", "Brand®", "Shop™", "© Co", "Ísafjörður"),
    *("Þórshöfn", "óæðri", "yöääni", "Hämeenlinna", "œuvre", "Œuvres", "£5", "5€", "¥100"),
    *("10 £", "col·legi", "São Paulo", "Ação", "Škoda", "Žilina", "naïve—and \u2013 so\u2019s"),
    *("\xa0Lyon\xa0", "l\u2019été\xa0»", "ÉCOLE ÉLÉMENTAIRE", "½", "¼ lb", "D\u2019Ÿ", "ß", "ÿ"),
)


@pytest.mark.parametrize("city", WESTERN)
def test_western_texts_are_no_other_encoding(tmp_path, city):
    content = csv(1).replace("Zürich", city).encode("cp1252")
    rows, rejects = read(tmp_path, "x.csv", content)
    assert ([row["city"] for row in rows], rejects) == ([city], [])


def test_broken_lines_of_utf_8_are_no_other_encoding(tmp_path):
    content = csv(1, 3, 2).encode().replace(b"Orl\xc3\xa9ans", b"\xc3\xa9\xc3\xa8\xc3\xa0 Orl\xc3")
    rows, rejects = read(tmp_path, "x.csv", content)
    assert [len(rows), len(rejects)] == [3, 0]
    late = csv(*range(1, 40)).encode() + csv(41).splitlines()[1].encode("cp1252")
    rows, _ = read(tmp_path, "late.csv", late)
    assert rows[-1]["city"] == "København"


@pytest.mark.parametrize(
    ("encoding", "name", "cities"),
    [
        ("gb18030", "GB18030", "北京 上海 广州 深圳 成都 杭州 武汉 西安 重庆 天津"),
        ("big5", "BIG5", "台北 高雄 台中 台南 新竹 基隆 嘉義 屏東 花蓮 宜蘭"),
        ("shift_jis", "CP932", "東京 大阪 スーパー 京都 さくら 名古屋 福岡 ソニー 神戸 札幌"),
        ("euc_kr", "CP949", "서울 부산 대구 인천 광주 대전 울산 수원 창원 성남"),
        ("cp1251", "CP1251", "Москва Казань Пермь Самара Уфа Омск Тула Псков Тверь Сочи"),
        ("koi8_r", "KOI8-R", "Москва Казань Пермь Самара Уфа Омск Тула Псков Тверь Сочи"),
    ],
)
def test_another_encoding_is_named_where_words_are_many(tmp_path, encoding, name, cities):
    rows = "".join(csv(1).splitlines()[1].replace("Zürich", f"{c}\n") for c in cities.split())
    with pytest.raises(UserError, match=rf"not UTF-8 but {name},.*\n.*iconv -f {name} -t UTF-8 x"):
        read(tmp_path, "x.csv", f"{','.join(NAMES)}\n{rows}".encode(encoding))


def test_another_encoding_is_seen_wherever_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "CHUNK_BYTES", 1000)
    plain = csv(*range(900)).translate(str.maketrans("éüø", "euo")).encode()
    foreign = csv(901).splitlines()[1].replace("Zürich", "北京市").encode("gbk")
    with pytest.raises(UserError, match="is not UTF-8"):
        read(tmp_path, "x.csv", plain + foreign)
    with pytest.raises(UserError, match="is not UTF-8"):
        read(tmp_path, "x.csv.gz", gzip.compress(plain + foreign))


# Archives

PACKED = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}


@pytest.mark.parametrize("packing", [*PACKED, "zip", "zip in gz"])
@pytest.mark.parametrize(
    ("name", "content", "first_line"),
    [
        ("x.jsonl", jsonl(1, 2).encode(), 1),
        ("x.csv", csv(1, 2).encode(), 2),
        ("x.csv", csv(1, 2).encode("utf-16"), 2),
        ("x.json", json.dumps([row(1), row(2)], indent=1).encode(), 1),
        ("x.parquet", parquet(1, 2), 1),
    ],
    ids=["jsonl", "csv", "UTF-16", "JSON array", "parquet"],
)
def test_what_is_packed_is_read(tmp_path, packing, name, content, first_line):
    if packing.startswith("zip"):
        packed, given = zipped(name, content), "x.zip"
        packed = gzip.compress(packed) if packing == "zip in gz" else packed
    else:
        packed, given = PACKED[packing](content), f"{name}.{packing}"
    rows, rejects = read(tmp_path, given, packed)
    assert (users(rows), rejects) == (expected(first_line, 1, 2), [])
    rows, _ = read(tmp_path, "named otherwise", packed)
    assert users(rows) == expected(first_line, 1, 2)


def test_a_copy_leaves_room_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "CHUNK_BYTES", 100)
    monkeypatch.setattr(prepare, "MIN_FREE_BYTES", 1 << 60)
    with pytest.raises(UserError, match="does not fit on the disk"):
        read(tmp_path, "x.zip", zipped("x.csv", csv(*range(9)).encode()))


# JSON documents


PAGE = {"data": [row(1), row(2)], "has_more": False}
DOCUMENTS = {
    "an array": json.dumps([row(1), row(2)]),
    "a pretty array": json.dumps([row(1), row(2)], indent=4),
    "an array, a row a line": "[\n" + jsonl(1, 2).strip().replace("\n", ",\n") + "\n]\n",
    "an array with a mark": "\ufeff" + json.dumps([row(1), row(2)]),
    "two arrays": f"[{json.dumps(row(1))}]\n[{json.dumps(row(2))}]\n",
    "pretty objects": "\n".join(json.dumps(row(user), indent=2) for user in (1, 2)),
    "objects side by side": "".join(json.dumps(row(user)) for user in (1, 2)),
    "a page": json.dumps(PAGE),
    "a pretty page": json.dumps(PAGE, indent=1),
    "a list by another name": json.dumps({"transactions": [row(1), row(2)], "owner": "me"}),
    "a list further down": json.dumps({"response": {"items": [row(1), row(2)]}, "ok": True}),
    "pages": "\n".join(json.dumps({"data": [row(user)], "page": user}) for user in (1, 2)),
    "a page without rows": json.dumps(PAGE) + '\n{"data": [], "has_more": false}\n',
    "a list beside lists of texts": json.dumps({"tags": ["a"], "rows": [row(1), row(2)], "x": []}),
    "Windows line ends": json.dumps([row(1), row(2)], indent=1).replace("\n", "\r\n"),
}


@pytest.mark.parametrize("chunk", [1, 50, 1 << 20])
@pytest.mark.parametrize("what", DOCUMENTS)
def test_a_json_document_is_read(tmp_path, monkeypatch, what, chunk):
    """The number of an object is its line."""
    monkeypatch.setattr(prepare, "CHUNK_BYTES", chunk)
    rows, rejects = read(tmp_path, "x.json", DOCUMENTS[what])
    assert (users(rows), rejects) == (expected(1, 1, 2), [])


@pytest.mark.parametrize("chunk", [50, 1 << 20])
def test_a_large_page_is_not_held_in_memory(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(prepare, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(json_documents, "SMALL", 300)
    for content in (PAGE | {"data": [row(user) for user in range(500)]}, {"a": {"b": PAGE}}):
        rows, rejects = read(tmp_path, "x.json", json.dumps(content, indent=1))
        assert (len(rows), rejects) == (500 if "data" in content else 2, [])


def test_no_digit_of_a_document_changes(tmp_path):
    text = json.dumps(row(1), ensure_ascii=False)[:-1]
    more = '"big": 12345678901234567890.123456789012345678900, "e": 1E+2, "t": "a\\u00e9\\n"'
    [found], _ = read(tmp_path, "x.json", f"[{text},\n{more}\n}}]")
    assert found["extra_fields"] == (
        '{"big": 12345678901234567890.123456789012345678900, "e": 1E+2, "t": "aé\\n"}'
    )


@pytest.mark.parametrize(
    "first",
    [
        '{"transaction_id": "a", "amount":',
        '{"transaction_id": "a", "amount": 5',
        '{"transaction_id": "a", "city": "Ly',
        "{",
        '{"transaction_id": "a"},',
        "nonsense",
        "[1, 2]",
        "[]",
        json.dumps(row(3)) + json.dumps(row(4)),
        json.dumps([row(3)]),
        json.dumps({"data": [row(3)], "note": "of another kind"}),
    ],
)
def test_lines_stay_lines_when_the_first_one_is_bad(tmp_path, first):
    rows, [reject] = read(tmp_path, "x.jsonl", f"{first}\n{jsonl(1, 2)}")
    assert users(rows) == expected(2, 1, 2)
    assert (reject["_file_line"], reject["raw_text"]) == (1, first)


def test_a_list_within_a_row_makes_no_document_of_it(tmp_path):
    lines = [json.dumps(row(user) | {"items": [{"amount": 1}, {"amount": 2}]}) for user in (1, 2)]
    for content in ("\n".join(lines), json.dumps(json.loads(lines[0]), indent=1)):
        rows, rejects = read(tmp_path, "x.jsonl", content)
        assert (users(rows)[0], rejects) == (expected(1, 1)[0], [])
        assert json.loads(rows[0]["extra_fields"])["items"][1] == {"amount": 2}


# Envelopes

SOURCE = {"connector": "postgresql", "ts_ms": 1, "table": "transactions"}
ENVELOPES = {
    "payload": {"payload": row(1)},
    "Kafka Connect": {
        "schema": {"type": "struct", "fields": [{"field": "amount"}]},
        "payload": ...,
    },
    "Debezium, created": {"before": None, "after": ..., "source": SOURCE, "op": "c", "ts_ms": 2},
    "Debezium, updated": {"before": row(2), "after": ..., "source": SOURCE, "op": "u"},
    "Debezium in a payload": {"schema": {}, "payload": {"before": row(2), "after": ..., "op": "u"}},
    "Maxwell": {"database": "d", "type": "update", "data": ..., "old": {"amount": 1}},
    "DMS": {"data": ..., "metadata": {"operation": "insert", "timestamp": "t"}},
    "CloudEvents": {"id": "1", "type": "payment.made", "data": {"transaction": ...}},
}


def filled(value: object) -> object:
    """What is around a row, with the row in its place."""
    if isinstance(value, dict):
        return {name: filled(within) for name, within in value.items()}
    return row(1) if value is ... else value


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("what", ENVELOPES)
def test_a_row_is_taken_out_of_its_envelope(tmp_path, what, indent):
    rows, rejects = read(tmp_path, "x.json", json.dumps(filled(ENVELOPES[what]), indent=indent))
    assert (users(rows), rejects) == (expected(1, 1), [])
    assert rows[0]["extra_fields"] is None


@pytest.mark.parametrize(
    "deletion",
    [
        {"before": row(2), "after": None, "op": "d"},
        {"schema": {}, "payload": {"before": row(2), "after": None, "op": "d"}},
        {"schema": {}, "payload": None},
        {"type": "delete", "data": row(2)},
        {"data": row(2), "metadata": {"operation": "delete"}},
    ],
)
def test_a_deletion_lands_no_row(tmp_path, deletion):
    rows, [reject] = read(tmp_path, "x.jsonl", f"{json.dumps(deletion)}\n{jsonl(1)}")
    assert (len(rows), reject["reason_code"]) == (1, "deleted")


@pytest.mark.parametrize(
    "unclear",
    [
        {"a": row(1), "b": row(2)},
        {"amount": 5, "payload": row(1)},
        {"payload": {"amount": 5}},
        {"rows": [row(1)], "x": {"y": 1}},
    ],
)
def test_a_row_that_may_be_another_is_no_row(tmp_path, unclear):
    _, [reject] = read(tmp_path, "x.jsonl", f"{json.dumps(unclear)}\n{jsonl(1)}")
    assert reject["reason_code"] == "missing_field"


# In the warehouse


def test_the_ledger_knows_the_file_as_it_was_given(land, database, tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(zipped("x.csv", csv(1, 2).replace("Zürich", "").encode("utf-16")))
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps([row(3), row(4) | {"amount": "x"}]))
    assert land(path, bad).rows == {"transactions": 3, "files": 2}
    query = query_of(database)
    ledger = "select path, bytes, _file_checksum, first_line, last_line, header from files"
    assert query(f"{ledger} where path = '{path}'") == [
        (str(path), path.stat().st_size, source_file.probe(path)[1], 1, 3, ",".join(NAMES))
    ]
    assert query("select distinct _file_checksum from rejects") == [(source_file.probe(bad)[1],)]
    assert query("select _file_name, _file_line, reason_code from rejects") == [
        (str(bad), 2, "bad_amount")
    ]
    assert "has landed before" in land(path).notes[0]
    assert not any(files for *_, files in os.walk(tmp_path / "dlt" / "transactions_inbox"))


def test_what_a_killed_run_left_goes_with_the_next(land, tmp_path):
    left = tmp_path / "dlt" / "transactions_inbox" / "prepared" / "half a copy"
    left.parent.mkdir(parents=True)
    left.write_text(csv(1))
    path = tmp_path / "x.json"
    path.write_text(json.dumps([row(1)]))
    assert land(path).rows == {"transactions": 1, "files": 1}
    assert not left.parent.exists()


@pytest.mark.parametrize(
    ("name", "versions"),
    [
        ("x.csv", (csv(1).encode("utf-16"), csv(1, 2).encode("utf-16"))),
        ("x.json", (json.dumps(row(1), indent=2).encode(), DOCUMENTS["pretty objects"].encode())),
        ("x.csv.bz2", (bz2.compress(csv(1).encode()), bz2.compress(csv(1, 2).encode()))),
    ],
)
def test_a_file_that_is_made_plain_never_counts_as_grown(land, database, tmp_path, name, versions):
    before, after = versions
    path = tmp_path / name
    path.write_bytes(before)
    land(path)
    path.write_bytes(after)
    with pytest.raises(UserError, match="has changed since it landed"):
        land(path)
    assert land(path, replace=True).rows == {"transactions": 2, "files": 1}
    assert query_of(database)("select is_replacement from files order by _dlt_load_id") == [
        (False,),
        (True,),
    ]


# CSV as spreadsheets and banks write it

ABOVE = {
    "a title": "Account statement\n",
    "titles and a blank line": "Statement of March\n\nPrinted by Jane, on Monday\n\n",
    "Excel's separator": "sep=,\n",
    "titles with as many columns": "Account,DE12,,,\nOwner,Jane,,,\n",
    "a quote left open": 'The "new" statement, of "March\n',
}


@pytest.mark.parametrize("chunk", [60, 1 << 20])
@pytest.mark.parametrize("what", ABOVE)
def test_lines_above_the_header_are_left_out(tmp_path, monkeypatch, what, chunk):
    monkeypatch.setattr(lines, "CHUNK_BYTES", chunk)
    above = ABOVE[what]
    for name in ("x.csv", "named otherwise"):
        rows, rejects = read(tmp_path, name, above + csv(1, 2))
        assert (users(rows), rejects) == (expected(above.count("\n") + 2, 1, 2), [])


def test_a_header_may_be_in_quotes_and_parted_by_what_excel_says(tmp_path):
    names = ";".join(f'"{name}"' for name in NAMES)
    text = csv(1, 2).replace(",", ";").replace(";".join(NAMES), f"sep=;\n{names}")
    rows, rejects = read(tmp_path, "x.csv", text)
    assert (users(rows), rejects) == (expected(3, 1, 2), [])


def test_lines_above_the_header_count_and_are_noted(land, database, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("Statement\n\n" + csv(1).replace("12.5", "x") + csv(2).splitlines()[1] + "\n")
    assert f"{path} has its header on line 3; what is above it is left out." in land(path).notes
    query = query_of(database)
    assert query("select lines_read, first_line, last_line, header from files") == [
        (2, 1, 5, ",".join(NAMES))
    ]
    with path.open("a") as out:
        out.write(csv(1).splitlines()[1])
    assert land(path).rows == {"transactions": 1, "files": 1}
    assert query("select _file_line from transactions order by 1") == [(5,), (6,)]
    assert query("select _file_line from rejects") == [(4,)]


@pytest.mark.parametrize("count", [1, 500])
@pytest.mark.parametrize(
    ("written", "value"),
    [
        (' "Lyon, France"', "Lyon, France"),
        ('   "Lyon"', "Lyon"),
        (' "Lyon\nFrance"', "Lyon\nFrance"),
        (' "the ""old"" town"', 'the "old" town'),
        (" Lyon", " Lyon"),
        ('Lyon "the old"', 'Lyon "the old"'),
    ],
)
def test_blanks_before_a_quote_are_none_of_the_value(tmp_path, count, written, value):
    content = csv(1).replace("Zürich", written) + "".join(
        csv(1).splitlines()[1].replace("Zürich", written) + "\n" for _ in range(count - 1)
    )
    rows, rejects = read(tmp_path, "x.csv", content)
    assert ([row["city"] for row in rows], rejects) == ([value] * count, [])


@pytest.mark.parametrize("count", [1, 500])
@pytest.mark.parametrize(
    "written",
    [r'"the \"old\" town"', r'"the \"old\""', r"the \"old\" town", r'"\"old\" town"', r'"a\",b"'],
)
def test_quotes_behind_backslashes_are_never_kept_wrong(tmp_path, count, written):
    good = csv(1).splitlines()[1] + "\n"
    bad = good.replace("Zürich", written)
    rows, rejects = read(tmp_path, "x.csv", csv(1) + (good + bad) * count)
    assert [row["city"] for row in rows] == ["Zürich"] * (count + 1)
    assert {reject["reason_code"] for reject in rejects} <= {"not_csv", "column_count"}
    assert len(rejects) == count


# Workbooks


def workbook(**sheets: list[list]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, cells in sheets.items():
        sheet = book.create_sheet(title)
        for values in cells:
            sheet.append(values)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def cells(*numbers: int) -> list[list]:
    return [list(NAMES), *(list(row(number).values()) for number in numbers)]


def test_a_workbook_is_read(tmp_path):
    empty = [None] * len(NAMES)
    table = [["Account statement"], [], *cells(1), empty, *cells(2)[1:]]
    content = workbook(Notes=[["Printed by Jane"]], Rows=table, Empty=[])
    for name, given in [
        ("x.xlsx", content),
        ("named otherwise", content),
        ("x.zip", zipped("x.xlsx", content)),
        ("x.xlsx.gz", gzip.compress(content)),
    ]:
        rows, rejects = read(tmp_path, name, given)
        assert (users(rows), rejects) == ([(4, 1, "Zürich"), (6, 2, "København")], [])


def test_cells_are_read_as_they_are_typed(tmp_path):
    names = [
        "transaction_id",
        "event_ts",
        "user_id",
        "amount",
        "ok",
        "day",
        "at",
        "share",
        "no",
        "",
    ]
    values = [
        *("t1", datetime(2024, 3, 1, 12, 30, 15), 4000123412341234, Decimal("1234.567"), True),
        *(date(2024, 3, 2), time(8, 5), 0.1, None, "no name\nof its own"),
    ]
    [found], rejects = read(tmp_path, "x.xlsx", workbook(Rows=[names, values]))
    assert rejects == []
    assert (found["user_id"], found["amount"]) == ("4000123412341234", Decimal("1234.5670"))
    assert found["event_ts"].isoformat() == "2024-03-01T12:30:15+00:00"
    assert json.loads(found["extra_fields"]) == {
        "ok": True,
        "day": "2024-03-02",
        "at": "08:05:00",
        "share": 0.1,
        "column_10": "no name\nof its own",
    }


def test_a_bad_row_of_a_workbook_is_named_by_its_row(tmp_path):
    table = [*cells(1, 2), [*cells(3)[1][:3], "twelve", "Lyon"]]
    table[2][3] = 1e20  # more digits than a spreadsheet holds
    rows, rejects = read(tmp_path, "x.xlsx", workbook(Rows=table))
    assert users(rows) == expected(2, 1)
    assert [(r["_file_line"], r["reason_code"]) for r in rejects] == [
        (3, "bad_amount"),
        (4, "bad_amount"),
    ]


def test_of_several_sheets_the_one_with_the_columns_is_read(tmp_path):
    rows, _ = read(tmp_path, "x.xlsx", workbook(Codes=[["code", "is"], ["FR", "x"]], Rows=cells(1)))
    assert users(rows) == expected(2, 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (workbook(March=cells(1), April=cells(2)), "has several sheets with rows: March, April"),
        (workbook(Rows=[]), "has no sheet with a header and rows"),
        (workbook(Rows=cells(1))[:-400], "is not a whole zip file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "cannot be read as a workbook"),
    ],
)
def test_a_workbook_that_cannot_be_read(tmp_path, content, said):
    with pytest.raises(UserError, match=said) as caught:
        read(tmp_path, "x.xlsx", content)
    assert len(caught.value.message.splitlines()) == 2
