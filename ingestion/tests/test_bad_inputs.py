"""Bad input and what becomes of it: one table of what is given, what is said, what lands."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from psycopg2 import sql

import ingestion.pipeline
from ingestion.cli import marquee
from ingestion.tests.built import Built
from ingestion.tests.conftest import execute
from ingestion.warehouse.target import Target

ID = "0b9f3c1e-5a4d-4c3b-9f2e-1d2c3b4a5f60"
GOOD = {
    "transaction_id": ID,
    "event_ts": "2024-03-01T12:00:00Z",
    "user_id": 7,
    "amount": 12.5,
    "city": "Lyon",
}
HEAD = ",".join(GOOD)
ROW = ",".join(map(str, GOOD.values()))
HTML = "<!doctype html>\n<title>Sign in</title>\n"


def line(**changes) -> str:
    """A good line with some fields changed; ``...`` takes a field out."""
    return json.dumps({k: v for k, v in (GOOD | changes).items() if v is not ...})


def raw(**changes: str) -> str:
    """A good line with some values written literally."""
    pairs = {k: json.dumps(v) for k, v in GOOD.items()} | changes
    return "{" + ", ".join(f'"{k}": {v}' for k, v in pairs.items()) + "}"


def envelope(**around: object) -> str:
    return json.dumps(around)


def parquet(*rows: dict) -> bytes:
    """Good rows with some fields changed, each the same ones."""
    out = io.BytesIO()
    rows = [{k: v for k, v in (GOOD | row).items() if v is not ...} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def columns(*more: tuple[str, pa.Array], **changed: pa.Array) -> bytes:
    """Good rows as Parquet with some columns given, known ones and further ones."""
    given = [*changed.items(), *more]
    table = pa.Table.from_pylist([GOOD] * len(given[0][1])).drop_columns(changed.keys() & GOOD)
    for name, column in given:
        table = table.append_column(name, column)
    out = io.BytesIO()
    pq.write_table(table, out, compression="none", use_dictionary=False)
    return out.getvalue()


def stored(kind: pa.DataType, *numbers: int) -> pa.Array:
    """Values of a kind by the 64-bit numbers that they are stored as."""
    return pa.array(numbers, pa.int64()).view(kind)


def octets(*values: bytes) -> pa.Array:
    """A column of text, whether it is UTF-8 or not."""
    parts = pa.array(values, pa.binary()).buffers()
    return pa.Array.from_buffers(pa.string(), len(values), parts)


def zipped(method: int = zipfile.ZIP_STORED, **files: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.mkdir("folder")
        archive.writestr("__MACOSX/._x", b"of macOS")
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def encrypted(archive: bytes) -> bytes:
    """The archive with the mark of a password on each file."""
    for magic, at in ((b"PK\x03\x04", 2), (b"PK\x01\x02", 4)):
        pieces = archive.split(magic)
        marked = [bytes([*piece[:at], piece[at] | 1, *piece[at + 1 :]]) for piece in pieces[1:]]
        archive = magic.join([pieces[0], *marked])
    return archive


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path.write_text(line())
    path.chmod(0)


class File(NamedTuple):
    """A file that is refused as a whole: nothing of it lands.

    Attributes:
        what: it is.
        name: of the file.
        content: its bytes, or what makes it; None: it is not there.
        said: the two lines that the user sees; ``{}`` stands for the path, ``...`` for anything.
        before: what has landed from there before.
    """

    what: str
    name: str
    content: bytes | Callable[[Path], object] | None
    said: str
    before: bytes | None = None


class Rows(NamedTuple):
    """A file of which lines are refused; the others land.

    Attributes:
        what, name, content: as above; ``*`` in the content is a good line.
        landed: rows.
        rejects: line, reason code, and how the reason ends, of each.
    """

    what: str
    name: str
    content: str | bytes
    landed: int
    rejects: list[tuple[int, str, str]]


def bad_line(what: str, bad: str | bytes, code: str, end: str) -> Rows:
    """A good line and a bad one."""
    bad = bad if isinstance(bad, bytes) else bad.encode()
    return Rows(what, "x.jsonl", line().encode() + b"\n" + bad, 1, [(2, code, end)])


CORRECT = "Correct it, or raise sources.transactions.max_reject_share in .dlt/config.toml."
NAMES = "Their names end with ..."

BAD_INPUTS: list[File | Rows] = [
    # No file, or not one that can be read
    File("missing", "x.jsonl", None, "There is no file {}.\nCheck the path."),
    File("a glob without a match", "*.jsonl", None, "There is no file {}.\nCheck the path."),
    File(
        "a link to nowhere",
        "x.jsonl",
        lambda path: path.symlink_to("gone.jsonl"),
        "There is no file {}.\nCheck the path.",
    ),
    File(
        "a folder without files",
        "x",
        lambda path: path.mkdir(),
        "There is no file of transactions in {}.\n" + NAMES,
    ),
    File(
        "a folder of other files",
        "x",
        lambda path: path.mkdir() or (path / "notes.md").write_text(line()),
        "There is no file of transactions in {}.\n" + NAMES,
    ),
    File(
        "a pipe",
        "x.jsonl",
        os.mkfifo,
        "{} is no file.\nPipe it in: marquee ingest transactions - < {}",
    ),
    File(
        "no permission", "x.jsonl", unreadable, "{} cannot be read: Permission denied.\nCheck it."
    ),
    # Files without lines
    File("empty", "x.jsonl", b"", "{} is empty: nothing to land.\nCheck the path."),
    File("blank lines only", "x.jsonl", b"\n \r\n\n", "{} is empty: nothing to land.\nCheck..."),
    File("gzip of nothing", "x.jsonl.gz", gzip.compress(b""), "{} is empty: nothing to land.\n..."),
    File("a CSV header only", "x.csv", HEAD.encode(), "{} is empty: nothing to land.\nCheck..."),
    # Files of another kind
    File(
        "binary",
        "x.jsonl",
        bytes(range(128, 256)) * 9 + b"\n",
        "{}: 1 of 1 lines cannot land, 1 of them because the line is not UTF-8 (line 1: not_utf8)."
        " Nothing of it has landed.\nIs it in another encoding? Convert it: ...",
    ),
    File(
        "a web page",
        "x.jsonl",
        HTML.encode(),
        "{}: 2 of 2 lines cannot land, 2 of them because the line is not JSON (line 1: not_json)."
        " Nothing of it has landed.\n" + CORRECT,
    ),
    File(
        "a web page as CSV",
        "x.csv",
        HTML.encode(),
        "{} has no column transaction_id, event_ts, user_id, amount; it has: <!doctype html>.\n"
        "Name the columns in the first line as the contract does, or let Marquee write a mapping:"
        " marquee ingest transactions FILE --suggest",
    ),
    File(
        "a JSON array cut off",
        "x.json",
        json.dumps([GOOD, GOOD]).encode()[:-20],
        "{} is cut off: its JSON ends amid a value, at line 1, column 265.\nCopy it again.",
    ),
    File(
        "a JSON array cut off between its lines",
        "x.json",
        f"[\n{line()},\n".encode(),
        "{} is cut off: its JSON ends amid a value, at line 3, column 1.\nCopy it again.",
    ),
    File(
        "a JSON array with a line that is no JSON",
        "x.json",
        f"[\n{line()},\n{line(amount=1)[:-1]},\n{line()}\n]".encode(),
        "{} is no whole JSON document: expecting property name enclosed in double quotes,"
        " at line 4, column 1.\nCorrect it, or give one transaction a line (JSON Lines).",
    ),
    File(
        "JSON with two lists",
        "x.json",
        json.dumps({"charges": [GOOD], "more": {"refunds": [GOOD]}}).encode(),
        "{} has several lists of objects: charges, more.refunds.\n"
        "Write the one with the transactions to a file of its own: jq '.more.refunds'",
    ),
    File(
        "a page without rows", "x.json", b'{"data": [], "has_more": false}', "{} is empty: ...\n..."
    ),
    File(
        "CSV by the name of JSON",
        "x.jsonl",
        f"{HEAD}\n{ROW}\n".encode(),
        "{}: 2 of 2 lines cannot land, 2 of them because the line is not JSON ...\n" + CORRECT,
    ),
    File(
        "JSON by the name of CSV",
        "x.csv",
        f"{line(user_id=9)}\n".encode(),
        "{} has no column transaction_id, ...\nName the columns ...",
    ),
    File(
        "CSV with Macintosh line ends",
        "x.csv",
        f"{HEAD}\r{ROW}\r{ROW}\r".encode(),
        "{} has Macintosh line ends (CR alone).\nSave it with LF or CRLF line ends, in Excel ...",
    ),
    File(
        "CSV with Macintosh line ends below its header",
        "x.csv",
        f"{HEAD}\n{ROW}\n{ROW}\r{ROW}\r{ROW}\n".encode(),
        "{} has Macintosh line ends (CR alone) on line 3.\nSave it with LF or CRLF line ends...",
    ),
    # Encodings
    *(
        File(
            f"CSV in {encoding}",
            "x.csv",
            f"{HEAD}\n{ROW.replace('Lyon', city)}\n".encode(encoding),
            "{} is not UTF-8, nor Windows-1252.\n"
            "Convert it: iconv -f ENCODING -t UTF-8 {} > utf8.csv (ENCODING: GB18030, ...)",
        )
        for encoding, city in [
            *(("gb18030", "上海"), ("big5", "台北車站"), ("shift_jis", "大阪の店")),
            *(("euc_jp", "東京タワー"), ("euc_kr", "부산"), ("cp1251", "Пятёрочка")),
            *(("koi8_r", "Москва"), ("mac_roman", "Orléans"), ("cp850", "Málaga")),
            *(("iso8859_2", "Wrocław"), ("iso8859_7", "Αθήνα"), ("cp1256", "القاهرة")),
        ]
    ),
    File(
        "CSV in ISO-2022-JP",
        "x.csv",
        f"{HEAD}\n{ROW.replace('Lyon', '東京')}\n".encode("iso2022_jp"),
        "{} is not UTF-8 but ISO-2022-JP, it seems.\nConvert it: ...",
    ),
    File(
        "JSON Lines in Windows-1252",
        "x.jsonl",
        raw(city='"Orléans"').encode("cp1252"),
        "{}: 1 of 1 lines cannot land, ... not UTF-8 (line 1: not_utf8). Nothing of it has ...\n"
        "Is it in another encoding? Convert it: iconv -f ITS-ENCODING -t UTF-8",
    ),
    # Archives
    File("an empty zip archive", "x.zip", zipped(), "{} is an archive without a file in it.\n..."),
    File(
        "a zip archive of two files",
        "x.zip",
        zipped(a=line(), b=line(user_id=8)),
        "{} holds 2 files: a, b.\nUnpack it, and give the files, or their folder.",
    ),
    File(
        "a zip archive with a password",
        "x.zip",
        encrypted(zipped(a=line())),
        "{} is encrypted.\nUnpack it with its password, and give the file.",
    ),
    File(
        "a zip archive that is cut off",
        "x.zip",
        zipped(a=line() * 99)[:-30],
        "{} is not a whole zip file: File is not a zip file.\nCopy it again.",
    ),
    File(
        "a zip archive with a damaged file",
        "x.zip",
        zipped(a=f"{HEAD}\n{ROW}").replace(b"Lyon", b"Lyom"),
        "{} is not a whole zip file: Bad CRC-32 for file 'a'.\nCopy it again.",
    ),
    File(
        "a zip archive that unpacks to one endless line",
        "x.zip",
        zipped(zipfile.ZIP_DEFLATED, a="x" * (90 << 20)),
        "{} has a line of more than 64 MiB.\nGive one transaction a line.",
    ),
    File(
        "bzip2 cut short",
        "x.jsonl.bz2",
        bz2.compress(f"{line()}\n".encode())[:-9],
        "{} is not a whole bzip2 file: ...\nCopy it again.",
    ),
    File(
        "packed again and again",
        "x.csv",
        gzip.compress(gzip.compress(gzip.compress(gzip.compress(HEAD.encode())))),
        "{} is packed more than 3 times.\nUnpack it.",
    ),
    # Broken files
    File(
        "gzip cut short",
        "x.jsonl.gz",
        gzip.compress(f"{line()}\n".encode() * 99)[:-20],
        "{} is not a whole gzip file: ...\nCopy it again.",
    ),
    File(
        "gzip with a wrong checksum",
        "x.csv.gz",
        gzip.compress(f"{HEAD}\n{ROW}\n".encode())[:-8] + b"12345678",
        "{} is not a whole gzip file: CRC check failed...\nCopy it again.",
    ),
    File(
        "no gzip by the name of one",
        "x.jsonl.gz",
        b"\x00\x01\x02\n",
        "{}: 1 of 1 lines cannot land, 1 of them because the line is not JSON ...\n" + CORRECT,
    ),
    File(
        "a line without an end",
        "x.jsonl.gz",
        gzip.compress(b"x" * (90 << 20), 1),
        "{}: line 1 is longer than 64 MiB.\nGive one transaction a line (for a JSON array: ...).",
    ),
    File(
        "Parquet cut short",
        "x.parquet",
        parquet({})[:-9],
        "{} is not a whole Parquet file: ...\nCopy it again.",
    ),
    File(
        "Parquet with a damaged page",
        "x.parquet",
        b"PAR1" + b"\xff" * 40 + columns(user_id=pa.array(range(99)))[44:],
        "{} is not a whole Parquet file: Couldn't deserialize thrift: ...\nCopy it again.",
    ),
    File(
        "Parquet whose names are no text",
        "x.parquet",
        columns(note=pa.array(["x"])).replace(b"note", b"no\xff\xfe"),
        "{} cannot be read (UnicodeDecodeError: 'utf-8' codec ...). Nothing of it has landed.\n"
        "Write it anew, as JSON Lines perhaps; `marquee --debug ...` shows where it failed.",
    ),
    # Columns
    File(
        "CSV without a header",
        "x.csv",
        f"{ROW}\n{ROW}\n".encode(),
        "{} has no column transaction_id, event_ts, user_id, amount; it has: " + ID + ",...\n"
        "Name the columns in the first line as the contract does, or let Marquee write a mapping:"
        " marquee ingest transactions FILE --suggest",
    ),
    File(
        "CSV without a mandatory column",
        "x.csv",
        b"transaction_id,event_ts,user_id\n1,2,3\n",
        "{} has no column amount; it has: transaction_id, event_ts, user_id.\nName the columns...",
    ),
    File(
        "CSV with a column twice",
        "x.csv",
        f"{HEAD},amount\n{ROW},5\n".encode(),
        "{} has the column amount twice.\nLeave one of them.",
    ),
    File(
        "Parquet without a mandatory column",
        "x.parquet",
        parquet({"user_id": ...}),
        "{} has no column user_id; it has: ...\n...",
    ),
    File(
        "Parquet with a column of lists",
        "x.parquet",
        parquet({"city": ["Lyon"]}),
        "{}: the column city is list<...>, which cannot be read.\nStore it as text.",
    ),
    File(
        "Parquet without a value in a mandatory column",
        "x.parquet",
        columns(user_id=pa.nulls(2)),
        "{}: 2 of 2 lines cannot land, ... absent or null (line 1: missing_field). Nothing ...\n"
        + CORRECT,
    ),
    # Versions
    File(
        "another content than before",
        "x.jsonl",
        line(user_id=8).encode(),
        "{} has changed since it landed (...).\nIf this is a corrected version, add --replace: ...",
        before=line(user_id=1).encode(),
    ),
    File(
        "gzip that has grown",
        "x.jsonl.gz",
        gzip.compress(f"{line(user_id=2)}\n{line(user_id=3)}\n".encode()),
        "{} has changed since it landed (...).\nIf this is a corrected version, add --replace: ...",
        before=gzip.compress(f"{line(user_id=2)}\n".encode()),
    ),
    # Lines
    File(
        "all lines are bad",
        "x.jsonl",
        "\n".join([line(amount="x"), line(amount="y"), "no"]).encode(),
        "{}: 3 of 3 lines cannot land, 2 of them because amount is not a number that numeric(18,4)"
        " holds exactly (line 1: bad_amount). Nothing of it has landed.\n" + CORRECT,
    ),
    bad_line("not UTF-8", line(city="?").encode().replace(b"?", b"\xf6"), "not_utf8", "byte 135"),
    bad_line("cut off", line()[:-9], "not_json", "at character 132"),
    bad_line("a brace too many", line() + "}", "not_json", "at character 141"),
    bad_line("two on a line", line() + line(), "not_json", "at character 141"),
    bad_line("not a number", raw(amount="NaN"), "not_json", "NaN is not JSON at character 1"),
    bad_line("no end of nesting", "[" * 100_000, "not_json", "too deep"),
    bad_line("deleted", envelope(op="d", after=None), "deleted", "lands no row"),
    bad_line("deleted, by Kafka Connect", envelope(payload=None, schema=None), "deleted", "no row"),
    bad_line("in no envelope that is known", envelope(x=GOOD, y=GOOD), "missing_field", "n_id"),
    bad_line("a list", f"[{line()}]", "not_object", "not an object"),
    bad_line("a field twice", raw(city='1, "city": 2'), "duplicate_field", "city"),
    bad_line("a field left out", line(user_id=...), "missing_field", "user_id"),
    bad_line("null", line(amount=None), "missing_field", "amount"),
    bad_line("half an id", line(transaction_id=5.5), "bad_transaction_id", "5.5"),
    bad_line("no time of day", line(event_ts="2024-03-01"), "bad_timestamp", '"2024-03-01"'),
    bad_line("no such day", line(event_ts="2024-02-30T00:00Z"), "bad_timestamp", "for month)"),
    bad_line("seconds since 1970", line(event_ts=1709294400), "bad_timestamp", "1709294400"),
    bad_line("half a user", line(user_id=7.5), "bad_user_id", "7.5"),
    bad_line("a user of 256 letters", line(user_id="x" * 256), "bad_user_id", "x" * 50 + "..."),
    bad_line("a currency", line(amount="12,50 €"), "bad_amount", '"12,50 €"'),
    bad_line("one or a thousand", line(amount="1.000"), "ambiguous_amount", '"1.000"'),
    Rows(
        "quotes after backslashes",
        "x.csv",
        f'{HEAD}\n{ROW}\n{ROW[:-4]}"2\\" hose"\n{ROW[:-4]}"a \\"b\\" c"\n{ROW[:-4]}"x" y\n'
        f"{ROW}\n{ROW}\n",
        3,
        [
            (3, "not_csv", "a quote closes amid a value; within quotes write it twice"),
            (4, "not_csv", "a quote closes amid a value; within quotes write it twice"),
            (5, "not_csv", "a quote closes amid a value; within quotes write it twice"),
        ],
    ),
    bad_line("a fifth decimal", raw(amount="0.00001"), "bad_amount", "0.00001"),
    bad_line("an amount too large", line(amount=10**14), "bad_amount", "100000000000000"),
    bad_line("a number for a text", line(city=5), "wrong_type", "city is 5"),
    bad_line("a NUL", line(city="a\0b"), "bad_text", r'"a\u0000b"'),
    Rows(
        "too many columns",
        "x.csv",
        f"{HEAD}\n{ROW}\n{ROW},?\n",
        1,
        [
            (3, "column_count", "6 instead of 5"),
        ],
    ),
    Rows(
        "too few columns",
        "x.csv",
        f"{HEAD}\n{ROW}\n{ID}\n",
        1,
        [
            (3, "column_count", "1 instead of 5"),
        ],
    ),
    Rows(
        "the header once more",
        "x.csv",
        f"{HEAD}\n{ROW}\n{HEAD}\n",
        1,
        [
            (3, "bad_timestamp", '"event_ts"'),
        ],
    ),
    Rows(
        "a quote left open",
        "x.csv",
        f'{HEAD}\n{ROW}\n{ROW[:-4]}"Lyon\n{ROW}\n',
        2,
        [
            (3, "not_csv", "a quote is never closed"),
        ],
    ),
    Rows(
        "a quote left open before a quoted value",
        "x.csv",
        f'{HEAD}\r\n{ROW[:-4]}"Lyon\r\n{ROW}\r\n\r\n{ROW[:-4]}"St ""X"""\r\n{ROW}\r\n',
        3,
        [
            (2, "not_csv", "a quote is never closed"),
        ],
    ),
    Rows(
        "a quote left open before one too many",
        "x.csv",
        f'{HEAD}\n{ROW[:-4]}"Lyon\n{ROW}\n{ROW}"\n{ROW}\n',
        3,
        [
            (2, "not_csv", "a quote is closed only after other transactions"),
        ],
    ),
    Rows(
        "a quote left open amid a line",
        "x.csv",
        f'{HEAD},note\n{ROW[:-4]}"Lyon,a\n{ROW},b\n{ROW[:-4]}Nice",c\n{ROW},d\n',
        3,
        [
            (2, "not_csv", "a quote is closed only after other transactions"),
        ],
    ),
    Rows(
        "a record of two lines without a column",
        "x.csv",
        f'{HEAD},note\n{ROW},\n{ROW[:-4]}"two\nlines"\n{ROW},"two\nlines"\n',
        2,
        [
            (3, "column_count", "a quote is left open; 5 instead of 6, over 2 lines"),
            (4, "column_count", "1 instead of 6"),
        ],
    ),
    Rows(
        "a record of two lines with a bad amount",
        "x.csv",
        f'{HEAD}\n{ROW}\n{ROW[:-4].replace("12.5", "much")}"two\nlines"\n{ROW}\n',
        2,
        [
            (3, "bad_amount", '"much"'),
        ],
    ),
    Rows(
        "a value of too many lines",
        "x.csv",
        f"{HEAD}\n" + f"{ROW}\n" * 1_000 + f'{ROW[:-4]}"two' + "\n" * 1_000 + 'lines"\n',
        1_000,
        [
            (1_002, "not_csv", "a quote is not closed within 1,000 lines and 1 MiB"),
            (2_002, "column_count", "1 instead of 5"),
        ],
    ),
    Rows(
        "Parquet with a bad value",
        "x.parquet",
        parquet({}, {"transaction_id": ""}),
        1,
        [
            (2, "bad_transaction_id", '""'),
        ],
    ),
    Rows(
        "Parquet with the year 20000",
        "x.parquet",
        columns(event_ts=stored(pa.timestamp("us"), 0, 568_971_820_800_000_000)),
        1,
        [
            (2, "bad_timestamp", '"568971820800000000 timestamp[us]"'),
        ],
    ),
    Rows(
        "Parquet with microseconds that are called seconds",
        "x.parquet",
        columns(event_ts=stored(pa.timestamp("s", "UTC"), 0, 1_697_102_054_781_278)),
        1,
        [
            (2, "bad_timestamp", '"1697102054781278000 timestamp[ms, tz=UTC]"'),
        ],
    ),
    Rows(
        "Parquet with a text that is not UTF-8",
        "x.parquet",
        columns(city=octets(b"Lyon", b"N\xeemes")),
        1,
        [
            (2, "not_utf8", "city"),
        ],
    ),
    Rows(
        "Parquet with an unknown text that is not UTF-8",
        "x.parquet",
        columns(note=octets(b"Lyon", b"N\xeemes")),
        1,
        [
            (2, "not_utf8", "note"),
        ],
    ),
    Rows(
        "Parquet with a NUL inside a struct",
        "x.parquet",
        columns(note=pa.array([{"k": ["a"]}, {"k": ["b\0"]}])),
        1,
        [
            (2, "bad_text", r'"b\u0000"'),
        ],
    ),
    # What looks bad and is not: it lands, and dbt marks what breaks a business rule
    Rows("plain by the name of gzip", "x.jsonl.gz", "*\n", 1, []),
    Rows("gzip by a plain name", "x.jsonl", gzip.compress(line().encode()), 1, []),
    Rows("a mark, CRLF, blank lines", "x.jsonl", "\ufeff\r\n*\r\n\r\n*", 2, []),
    Rows("a negative amount", "x.jsonl", f"*\n{line(amount=-3)}", 2, []),
    Rows("an unknown status", "x.jsonl", f"*\n{line(status='LOST')}", 2, []),
    Rows("Parquet with a column of nulls", "x.parquet", columns(city=pa.nulls(2)), 2, []),
    Rows(
        "Parquet with an unknown time beyond the year 9999",
        "x.parquet",
        columns(expires=stored(pa.timestamp("us"), 0, 2**62)),
        2,
        [],
    ),
    Rows(
        "Parquet with an unknown column twice",
        "x.parquet",
        columns(("x", pa.array([1, 2])), ("x", pa.array([3, None]))),
        2,
        [],
    ),
    Rows("quotes amid values", "x.csv", f'{HEAD}\n{ROW[:-4]}12" disc\n{ROW}\n{ROW} 9"\n', 3, []),
    Rows("a value over lines", "x.csv", f'{HEAD}\n{ROW[:-4]}"a\r\n\n,b\rc"\n{ROW}\n', 2, []),
    Rows("a lone CR in a line", "x.csv", f"{HEAD}\n{ROW}\n{ROW}\r\r\n", 2, []),
    Rows("an unknown field", "x.jsonl", f"*\n{line(colour='red')}", 2, []),
]


FILES = [case for case in BAD_INPUTS if isinstance(case, File)]
ROWS = [case for case in BAD_INPUTS if isinstance(case, Rows)]


class Given(NamedTuple):
    """Where the table's files are, and the database in which those with bad lines have landed."""

    folder: Path
    said: str
    query: Callable[[str], list[tuple]]

    def path(self, case: File | Rows) -> Path:
        return self.folder / str(BAD_INPUTS.index(case)) / case.name


def ingest(*paths: Path) -> tuple[int, str]:
    """Exit code and output of the command line, run in this process."""
    done = CliRunner().invoke(marquee, ["ingest", "transactions", *map(str, paths)])
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def given(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    folder = tmp_path_factory.mktemp("given")
    database = sql.Identifier("test_bad_inputs")
    execute(target, sql.SQL("create database {} template template0").format(database))
    warehouse = Built(replace(target, dbname=database.string), folder)
    warehouse.write_profile()
    made = Given(folder, "", warehouse.rows)
    files = []
    for case in BAD_INPUTS:
        path = made.path(case)
        path.parent.mkdir()
        content = case.content if isinstance(case, Rows) else case.before
        if isinstance(content, str):
            content = content.replace("*", line()).encode()
        if content:
            path.write_bytes(content)
            files.append(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DBT_PROFILES_DIR", str(folder))
        patch.setattr(ingestion.pipeline, "STATE_DIR", folder / "state")
        code, said = ingest(*files)
        assert code == 0, said
        yield made._replace(said=said)
    execute(target, sql.SQL("drop database {} with (force)").format(database))


def landed(given: Given, path: Path) -> dict[str, int]:
    """Rows of each raw table that are of a file."""
    return {
        table: given.query(
            f"select count(*) from raw_transactions.{table} where _file_name = '{path}'"
        )[0][0]
        for table in ("transactions", "rejects", "files")
    }


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.what)
def test_a_file_that_is_refused(given: Given, case: File, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DBT_PROFILES_DIR", str(given.folder))
    path = given.path(case)
    if callable(case.content):
        case.content(path)
    elif case.content is not None:
        path.write_bytes(case.content)
    before = landed(given, path)

    code, said = ingest(path)
    assert code == 1
    expected = re.escape(f"Error: {case.said}\n".replace("{}", str(path)))
    assert re.fullmatch(expected.replace(r"\.\.\.", ".*"), said), said
    assert landed(given, path) == before
    assert before["files"] == (case.before is not None)


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.what)
def test_lines_that_are_refused(given: Given, case: Rows):
    path = given.path(case)
    assert landed(given, path) == {
        "transactions": case.landed,
        "rejects": len(case.rejects),
        "files": 1,
    }
    assert given.query(
        "select lines_read, rows_landed, rows_rejected from raw_transactions.files"
        f" where _file_name = '{path}'"
    ) == [(case.landed + len(case.rejects), case.landed, len(case.rejects))]
    found = given.query(
        "select _file_line, reason_code, reason from raw_transactions.rejects"
        f" where _file_name = '{path}' order by 1"
    )
    assert [row[:2] for row in found] == [row[:2] for row in case.rejects]
    for (*_, reason), (*_, end) in zip(found, case.rejects, strict=True):
        assert reason.endswith(end)


def test_what_has_landed_is_json(given: Given):
    """PostgreSQL checks escapes only when it makes jsonb of them."""
    assert given.query(
        "select count(distinct extra_fields::jsonb) from raw_transactions.transactions"
        " where jsonb_typeof(extra_fields::jsonb) = 'object'"
    ) > [(4,)]


def test_what_the_user_sees_of_refused_lines(given: Given):
    files = len(ROWS) + sum(case.before is not None for case in FILES)
    rows = sum(case.landed for case in ROWS) + files - len(ROWS)
    rejects = sum(len(case.rejects) for case in ROWS)
    shown = dict(re.findall(r"raw_transactions\.(\w+) +([\d,]+) rows", given.said))
    assert shown == {"transactions": f"{rows:,}", "files": f"{files}", "rejects": f"{rejects}"}
    assert len(BAD_INPUTS) >= 24
