"""Brands: what the reader makes of the files people have, and what lands of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from ingestion.errors import UserError
from ingestion.pipeline import make_pipeline
from ingestion.sources.brands import ingest_brands, ingest_releases
from ingestion.sources.brands.reader import read
from ingestion.sources.brands.settings import BRAND_RELEASES, BRANDS
from ingestion.warehouse.paths import PROJECT_DIR

HEADER = "Brand\tTotal\tReleases\t#1 Release\tLifetime Gross\n"
PIXAR = "Pixar\t6078217662\t28\tIncredibles 2\t608581744\n"
LAIKA = "Laika\t300158323\t6\tCoraline\t75286229\n"
PIXAR_ROW = ("Pixar", 6078217662, 28, "Incredibles 2", 608581744)
LAIKA_ROW = ("Laika", 300158323, 6, "Coraline", 75286229)
BOTH = [PIXAR_ROW, LAIKA_ROW]
PLAIN = HEADER + PIXAR + LAIKA
COMMAS = "Brand,Total,Releases,#1 Release,Lifetime Gross\n"
WARDROBE = "The Chronicles of Narnia: The Lion, the Witch and the Wardrobe"
FRENCH = "Marque;Total;Sorties;#1 Sortie;Revenu à Vie\n"
FRENCH_ROWS = (
    "Pixar;6 078 217 662 $;28;Incredibles 2;608 581 744 $\n"
    "Laika;300 158 323 $;6;Coraline;75 286 229 $\n"
)


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "given.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def index_rows(reading) -> list[tuple]:
    names = ("brand", "total", "releases", "top_release", "lifetime_gross")
    return [tuple(row[name] for name in names) for row in reading.rows]


def codes(reading) -> dict[int, str]:
    return {reject["_file_line"]: reject["reason_code"] for reject in reading.rejects}


# Content of the index, rows it gives, line number and reason code of what it does not.
INDEXES = {
    "tabs": (PLAIN, BOTH, {}),
    "commas": (PLAIN.replace("\t", ","), BOTH, {}),
    "semicolons": (PLAIN.replace("\t", ";"), BOTH, {}),
    "pipes": (PLAIN.replace("\t", " | "), BOTH, {}),
    "windows line ends": (PLAIN.replace("\n", "\r\n"), BOTH, {}),
    "old mac line ends": (PLAIN.replace("\n", "\r"), BOTH, {}),
    "no last line end": (PLAIN.rstrip(), BOTH, {}),
    "utf-8 mark": (b"\xef\xbb\xbf" + PLAIN.encode(), BOTH, {}),
    "utf-16": (PLAIN.encode("utf-16"), BOTH, {}),
    "utf-16 without its mark": (PLAIN.encode("utf-16-be"), BOTH, {}),
    "french, utf-8": (FRENCH + FRENCH_ROWS, BOTH, {}),
    "french, latin-1": ((FRENCH + FRENCH_ROWS).encode("latin-1"), BOTH, {}),
    "french, accent lost": ((FRENCH + FRENCH_ROWS).replace("à", "\ufffd"), BOTH, {}),
    "french, accent mistaken": ((FRENCH + FRENCH_ROWS).replace("à", "Ã\xa0"), BOTH, {}),
    "french, no-break spaces": (
        FRENCH
        + FRENCH_ROWS.replace(" 078 217", "\xa0078\u202f217").replace("75 286", "75\u2009286"),
        BOTH,
        {},
    ),
    "white space of every kind": (
        HEADER.replace("Brand", "\u200bBrand\u00a0")
        + PIXAR.replace("\t", "\u3000\t\ufeff").replace("\n", "\u202f\u200f\r\n")
        + "\u200b\t\u2007\t\ufeff\n",
        [PIXAR_ROW],
        {},
    ),
    "quotes behind backslashes": (
        PLAIN + 'Weird\t5\t1\t"2\\" hose"\t5\n' + 'Weird\t5\t1\t"a \\"b\\" c"\t5\n',
        BOTH,
        {4: "broken_quotes", 5: "broken_quotes"},
    ),
    "any case, any order, spaces": (
        " LIFETIME GROSS , brand,total,#1 release,releases\n"
        " 608581744 , Pixar ,6078217662,Incredibles 2,28\n",
        [PIXAR_ROW],
        {},
    ),
    "dollars, quoted": (
        COMMAS + 'Pixar,"$6,078,217,662",28,Incredibles 2,"$608,581,744"\n',
        [PIXAR_ROW],
        {},
    ),
    "dollars behind, cents": (
        HEADER + "Pixar\t6.078.217.662,00 $\t28\tIncredibles 2\t608,581,744.00 USD\n",
        [PIXAR_ROW],
        {},
    ),
    "optional values missing": (
        HEADER + PIXAR + "Laika\t300158323\t-\t\tn/a\n",
        [PIXAR_ROW, ("Laika", 300158323, None, None, None)],
        {},
    ),
    "mandatory values missing": (
        PLAIN + "\t5\t1\tIt\t5\nAardman\t-\t16\tChicken Run\t106834564\n",
        BOTH,
        {4: "missing_value", 5: "missing_value"},
    ),
    "numbers that are none": (
        PLAIN + PIXAR + "A\tmuch\t1\tB\t1\n" + "C\t15,80\t1.5\tD\t1\n",
        BOTH,
        {4: "duplicate_row", 5: "bad_number", 6: "bad_number"},
    ),
    "a title that is a number": (
        HEADER + "Dark Horse Comics\t947671338\t16\t300\t210614939\n",
        [("Dark Horse Comics", 947671338, 16, "300", 210614939)],
        {},
    ),
    "a quoted title with commas": (
        COMMAS + f'Walden Media,1842852183,38,"{WARDROBE}",291710957\n',
        [("Walden Media", 1842852183, 38, WARDROBE, 291710957)],
        {},
    ),
    "an unquoted title with commas": (
        COMMAS + f"Walden Media,1842852183,38,{WARDROBE},291710957\n",
        [("Walden Media", 1842852183, 38, WARDROBE, 291710957)],
        {},
    ),
    "commas that can be read in several ways": (
        PLAIN.replace("\t", ",") + "Warner,946,5,100,000 BC,94\n",
        BOTH,
        {4: "too_many_columns"},
    ),
    "unquoted dollars with commas": (
        PLAIN.replace("\t", ",") + "A,$1,234,5,B,$1,000\n",
        BOTH,
        {4: "too_many_columns"},
    ),
    "typographic quotes stay": (
        HEADER + "Tyler Perry\t765635362\t16\tPerry\u2019s “Madea”\t90508336\n",
        [("Tyler Perry", 765635362, 16, "Perry\u2019s “Madea”", 90508336)],
        {},
    ),
    "quotes inside a title stay": (
        HEADER + 'Weird\t5\t1\t"Weird Al" Story\t5\n' + PIXAR,
        [("Weird", 5, 1, '"Weird Al" Story', 5), PIXAR_ROW],
        {},
    ),
    "an open quote swallows nothing": (
        HEADER + 'Odd\t5\t1\t"It\t5\n' + PIXAR + LAIKA,
        BOTH,
        {2: "broken_quotes"},
    ),
    "titles, blanks, notes, totals": (
        "Brand index\n\n" + PLAIN + "\n \t\t\nTotal\t6378375985\t34\t\t\nSource: Box Office Mojo\n",
        BOTH,
        {1: "above_header", 8: "summary_row", 9: "note"},
    ),
    "the header again": (HEADER + PIXAR + HEADER + LAIKA, BOTH, {3: "repeated_header"}),
    "the same row again": (PLAIN + PIXAR, BOTH, {4: "duplicate_row"}),
    "the same brand again": (
        PLAIN + "PIXAR\t1\t1\tUp\t1\n",
        BOTH,
        {4: "duplicate_brand"},
    ),
    "too few columns": (PLAIN + "Aardman\t333777829\n", BOTH, {4: "too_few_columns"}),
    "a line without end": (PLAIN + "x\t" * 100_000 + "\n", BOTH, {4: "line_too_long"}),
    "a line of delimiters": (PLAIN + "\t" * 90_000 + "\n", BOTH, {}),
    "a row with no end of delimiters": (
        HEADER + PIXAR + LAIKA.rstrip("\n") + "\t" * 90_000 + "\n",
        BOTH,
        {},
    ),
    "no end of values": (PLAIN + "x\t" * 45_000 + "\n", BOTH, {4: "too_many_columns"}),
    "files put together, each with its mark": (
        HEADER + "\ufeff" + PIXAR + '\ufeff"Odd\t5\t1\tIt\t5\n' + "\ufeff" + LAIKA,
        BOTH,
        {3: "broken_quotes"},
    ),
    "trailing delimiters": (PLAIN.replace("\n", "\t\t\n"), BOTH, {}),
    "no header, five columns": (PIXAR + LAIKA, BOTH, {}),
}


@pytest.mark.parametrize(("content", "rows", "rejects"), INDEXES.values(), ids=INDEXES.keys())
def test_index_is_read_as_it_comes(content, rows, rejects, tmp_path):
    reading = read(write(tmp_path, content), BRANDS)
    assert index_rows(reading) == rows
    assert codes(reading) == rejects
    assert reading.rows_read == len(rows) + len(rejects)


@pytest.mark.parametrize("further", [12, 16, 995])
def test_surplus_delimiters_among_many_columns(further, tmp_path):
    """As many readings as there are would take years to try."""
    names = ",".join(f"c{number}" for number in range(further))
    surplus = ",x" * (further + 12)
    content = f"Brand,{names},Total\nPixar{',x' * further},5\nLaika{',x' * further},3\n"
    reading = read(write(tmp_path, f"{content}A{surplus},much\nB{surplus},5\n"), BRANDS)
    assert [(row["brand"], row["total"]) for row in reading.rows] == [("Pixar", 5), ("Laika", 3)]
    assert codes(reading) == {4: "too_many_columns", 5: "too_many_columns"}
    assert "no reading fits" in reading.rejects[0]["reason"]
    assert "in several ways" in reading.rejects[1]["reason"]


def test_a_line_of_far_too_many_names_is_no_header(tmp_path):
    with pytest.raises(UserError, match="no line with the headers"):
        read(write(tmp_path, "Brand,Total" + ",x" * 45_000 + "\nPixar,5\n"), BRANDS)


# Content of release lists; brand, position, release and gross of its rows; rejects.
LISTS = {
    "as bundled": (
        'brand,position,release\nPixar,1,"Monsters, Inc."\nPixar,2,WALL·E\n',
        [("Pixar", 1, "Monsters, Inc.", None), ("Pixar", 2, "WALL·E", None)],
        {},
    ),
    "ranks, gross, unquoted commas": (
        "Brand,Rank,Release,Lifetime Gross\n"
        "Pixar,#1,Monsters, Inc.,289916256\nPixar,2.,Up,293004164\n",
        [("Pixar", 1, "Monsters, Inc.", 289916256), ("Pixar", 2, "Up", 293004164)],
        {},
    ),
    "commas of which text?": (
        "Rank,Brand,Release,Gross\n1,Pixar,Up,293004164\n2,Pixar,Monsters, Inc.,289916256\n",
        [("Pixar", 1, "Up", 293004164)],
        {3: "too_many_columns"},
    ),
    "french, no positions": (
        "Marque;Sortie\nPixar;Là-haut\nLaika;Coraline\nPixar;Cars\n",
        [("Pixar", 1, "Là-haut", None), ("Laika", 1, "Coraline", None), ("Pixar", 2, "Cars", None)],
        {},
    ),
    "one title twice, one position twice": (
        "brand,position,release\nStephen King,1,It\nStephen King,2,It\nStephen King,2,Misery\n",
        [("Stephen King", 1, "It", None), ("Stephen King", 2, "It", None)],
        {4: "duplicate_position"},
    ),
    "mixed encodings": (
        "brand,position,release\nMTV,1,Æon Flux\n".encode() + "Amazon,1,Café\n".encode("cp1252"),
        [("MTV", 1, "Æon Flux", None), ("Amazon", 1, "Café", None)],
        {},
    ),
    "commas without numbers around them": (
        "brand,release\nPixar,Up\nPixar,Monsters, Inc.\n",
        [("Pixar", 1, "Up", None)],
        {3: "too_many_columns"},
    ),
}


@pytest.mark.parametrize(("content", "rows", "rejects"), LISTS.values(), ids=LISTS.keys())
def test_release_lists_are_read_as_they_come(content, rows, rejects, tmp_path):
    reading = read(write(tmp_path, content), BRAND_RELEASES)
    names = ("brand", "position", "release", "gross")
    assert [tuple(row[name] for name in names) for row in reading.rows] == rows
    assert codes(reading) == rejects


REFUSED = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\t\n", "is empty"),
    "header only": (HEADER, "no rows"),
    "another table": ("Name,Age\nAda,36\n", "columns Brand and Total"),
    "prose": ("Brands are many.\nTotals, too.\n", "columns Brand and Total"),
    "five columns of another kind": ("Pixar,film,28,2018,US\n", "columns Brand and Total"),
    "the release lists": ("brand,position,release\nPixar,1,Up\n", "but the release lists"),
    "workbook": (b"PK\x03\x04" + bytes(60), "as CSV"),
    "old workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1" + bytes(60), "as CSV"),
    "binary": (bytes(range(256)) * 4, "not a text file"),
    "header and rows with different delimiters": (HEADER + PIXAR.replace("\t", ";"), "1 of 1 rows"),
    "most rows unreadable": (HEADER + PIXAR + "A\tx\t1\tB\t1\nC\ty\t1\tD\t1\n", "2 of 3 rows"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_index_is_refused(content, message, tmp_path):
    with pytest.raises(UserError) as refusal:
        read(write(tmp_path, content), BRANDS)
    assert message in refusal.value.message
    assert len(refusal.value.message.splitlines()) == 2  # what is wrong, what to do


def test_no_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        read(tmp_path / "missing.csv", BRANDS)
    with pytest.raises(UserError, match="is a folder"):
        read(tmp_path, BRANDS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"),
        ("1234", "1234"),
        ("$1,234", "1234"),
        ("US$1,234", "1234"),
        ("1 234,56", "1234.56"),
        ("1.234.567", "1234567"),
        ("1.234", "1234"),
        ("1'234.5", "1234.5"),
        ("15806336901.0", "15806336901"),
        ("15\u202f806\u202f336\u202f901 $", "15806336901"),
        ("15Â\xa0806Â\xa0336Â\xa0901", "15806336901"),
        ("999999999999999999", "999999999999999999"),
        *((text, None) for text in ("1,23,456", "1.234,567", "12,34,5", "0.123", "-5", "(5)")),
        *((text, None) for text in ("1e9", "1.2B", "€5", "007", "1,234 567", "9" * 19, "٣")),
    ],
)
def test_money_is_read_exactly_or_not_at_all(text, value, tmp_path):
    reading = read(write(tmp_path, PLAIN + f"A\t{text}\t1\tB\t1\n"), BRANDS)
    if value is None:
        assert codes(reading) == {4: "bad_number"}
    else:
        assert reading.rows[2]["total"] == Decimal(value)


def test_ranks_come_from_the_file_or_its_order(tmp_path):
    ranked = "Rank" + "\t" + HEADER + "2\t" + LAIKA + "1\t" + PIXAR
    assert [row["rank"] for row in read(write(tmp_path, ranked), BRANDS).rows] == [2, 1]
    unranked = HEADER + LAIKA + "A\tx\t1\tB\t1\n" + PIXAR
    assert [row["rank"] for row in read(write(tmp_path, unranked), BRANDS).rows] == [1, 2]


def test_columns_nobody_asked_for_are_kept(tmp_path):
    content = "Brand,Owner,Total,Owner\nPixar,Disney,5,\nLaika,,5,Knight\n"
    rows = read(write(tmp_path, content), BRANDS).rows
    assert [row["extra_fields"] for row in rows] == [{"Owner": "Disney"}, {"Owner_": "Knight"}]


def test_bundled_files_are_read_whole():
    index, lists = read(None, BRANDS), read(None, BRAND_RELEASES)
    assert (len(index.rows), len(lists.rows)) == (45, 607)
    assert not index.rejects
    assert not lists.rejects
    listed = {row["brand"] for row in lists.rows}
    assert len(listed) == 24
    assert listed <= {row["brand"] for row in index.rows}


# --- landing -----------------------------------------------------------------------------------

# How dbt picks the rows that hold.
LATEST = """
    select {columns}
    from raw_brands.{kind} as landed
    where landed._dlt_load_id = (
        select files._dlt_load_id
        from raw_brands.files
        inner join raw_brands._dlt_loads as loads on files._dlt_load_id = loads.load_id
        where files.kind = '{kind}' and loads.status = 0
        order by files.landed_at desc
        limit 1
    )
    order by landed._file_line
"""


def query(target, statement: str) -> list[tuple]:
    connection = target.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()
    finally:
        connection.close()


def latest(target, kind="brands", columns="brand") -> list:
    return query(target, LATEST.format(kind=kind, columns=columns))


@pytest.fixture
def pipeline(database, tmp_path):
    return make_pipeline("brands", database, tmp_path / "dlt")


def test_landing(database, pipeline, tmp_path):
    file = write(tmp_path, PLAIN + "A\tx\t1\tIt's \\ 'B'\t1\n")

    report = ingest_brands(file, database, pipeline)
    assert (report.source, report.rows, report.rejected) == ("brands", {"brands": 2}, 1)
    assert "line 4" in report.notes[0]
    columns = "brand, total, releases, top_release, lifetime_gross, rank, _file_line, _file_name"
    assert latest(database, columns=columns) == [
        (*PIXAR_ROW, 1, 2, str(file)),
        (*LAIKA_ROW, 2, 3, str(file)),
    ]
    assert query(database, "select kind, raw_text, reason_code from raw_brands.rejects") == [
        ("brands", "A\tx\t1\tIt's \\ 'B'\t1", "bad_number")
    ]
    ledger = "select kind, rows_read, rows_landed, rows_rejected, bytes from raw_brands.files"
    assert query(database, ledger) == [("brands", 3, 2, 1, file.stat().st_size)]
    # the table of the other kind is there for dbt, and empty
    assert query(database, "select count(*) from raw_brands.brand_releases") == [(0,)]

    lists = write(tmp_path, "brand,position,release,Owner\nPixar,1,WALL·E,Disney\n")
    assert ingest_releases(lists, database, pipeline).rows == {"brand_releases": 1}
    columns = "brand, position, release, gross, extra_fields"
    assert latest(database, "brand_releases", columns) == [
        ("Pixar", 1, "WALL·E", None, {"Owner": "Disney"})
    ]
    assert latest(database) == [("Pixar",), ("Laika",)]  # each kind has its own latest version
    variants = (
        "select count(*) from information_schema.columns"
        " where table_schema = 'raw_brands' and column_name like '%\\_\\_v\\_%'"
    )
    assert query(database, variants) == [(0,)]


def test_a_version_lands_once_and_may_come_back(database, pipeline, tmp_path):
    old, new = HEADER + PIXAR, HEADER + LAIKA
    landed = []
    for content in (old, old, new, new, old):
        report = ingest_brands(write(tmp_path, content), database, pipeline)
        landed.append(report.rows["brands"])
        assert any("unchanged" in note for note in report.notes) == (not landed[-1])
        assert latest(database) == [("Pixar",)] if content == old else [("Laika",)]
    assert landed == [1, 0, 1, 0, 1]
    assert query(database, "select count(*) from raw_brands.files") == [(3,)]
    assert query(database, "select count(*) from raw_brands.brands") == [(3,)]


def test_drift_between_two_versions_is_found_by_the_query_of_the_readme(
    database, pipeline, tmp_path
):
    """Totals of 2022 and of 2025; one brand comes, and one file is refused in between."""
    readme = (PROJECT_DIR / "README.md").read_text(encoding="utf-8")
    [drift] = re.findall(r"```sql\n(select brand, .*?)```", readme, re.DOTALL)
    pixar = "Pixar\t{}\t{}\tToy Story 4\t434038008\n"
    ingest_brands(write(tmp_path, HEADER + pixar.format("6177110498", 24)), database, pipeline)
    with pytest.raises(UserError):
        ingest_brands(write(tmp_path, HEADER + pixar.format("x", 24)), database, pipeline)
    newer = HEADER + pixar.format("7183472015", 29) + LAIKA
    ingest_brands(write(tmp_path, newer), database, pipeline)
    rows = [(row[0], *row[2:]) for row in query(database, drift)]
    assert rows == [
        ("Laika", LAIKA_ROW[1], None, LAIKA_ROW[2]),
        ("Pixar", 6177110498, None, 24),
        ("Pixar", 7183472015, 7183472015 - 6177110498, 29),
    ]


def test_bundled_sample_lands_and_says_so(database, pipeline):
    for ingest, kind, rows in (
        (ingest_brands, "brands", 45),
        (ingest_releases, "brand_releases", 607),
    ):
        report = ingest(None, database, pipeline)
        assert report.rows == {kind: rows}
        assert "bundled sample" in report.notes[0]
        assert len(latest(database, kind)) == rows


def test_refused_file_lands_nothing(database, pipeline, tmp_path):
    ingest_brands(write(tmp_path, PLAIN), database, pipeline)
    with pytest.raises(UserError):
        ingest_brands(write(tmp_path, HEADER + "A\tx\t1\tB\t1\n"), database, pipeline)
    assert query(database, "select count(*) from raw_brands.rejects") == [(0,)]
    assert latest(database) == [("Pixar",), ("Laika",)]


def test_a_dropped_schema_is_made_again(database, pipeline, tmp_path):
    file = write(tmp_path, PLAIN)
    ingest_brands(file, database, pipeline)
    connection = database.connect()
    with connection, connection.cursor() as cursor:
        cursor.execute("drop schema raw_brands cascade")
    connection.close()
    ingest_brands(file, database, make_pipeline("brands", database, tmp_path / "dlt"))
    assert latest(database) == [("Pixar",), ("Laika",)]


KILLED = """
import os, sys
from pathlib import Path
import dlt.common.storages.load_package, dlt.pipeline.pipeline
from ingestion.pipeline import make_pipeline
from ingestion.sources.brands import ingest_brands
from ingestion.warehouse.target import Target

module, owner, method, about, file, folder = sys.argv[1:]
whole = getattr(getattr(sys.modules[module], owner), method)
def die(*args, **kwargs):
    return os._exit(9) if about in str(args) else whole(*args, **kwargs)
setattr(getattr(sys.modules[module], owner), method, die)
target = Target("test", os.environ["PGHOST"], int(os.environ["PGPORT"]), os.environ["PGUSER"],
    os.environ["PGPASSWORD"], os.environ["PGDATABASE"], "public")
ingest_brands(Path(file), target, make_pipeline("brands", target, Path(folder)))
"""
COMMITTED = ("dlt.common.storages.load_package", "PackageStorage", "save_pending_transition")


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(("dlt.pipeline.pipeline", "Pipeline", "normalize", ""), id="read"),
        pytest.param((*COMMITTED, "'brands."), id="rows committed, dlt does not know"),
    ],
)
def test_a_killed_run_is_finished_by_the_next(moment, database, tmp_path):
    before, folder = tmp_path / "before.tsv", tmp_path / "dlt"
    before.write_text(HEADER + PIXAR)
    ingest_brands(before, database, make_pipeline("brands", database, folder))
    file = write(tmp_path, PLAIN)

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *moment, str(file), str(folder)],
        env=os.environ | database.libpq_env(),
        cwd=PROJECT_DIR,
        check=False,
    )
    assert killed.returncode == 9
    assert latest(database) == [("Pixar",)]  # a load counts when it is whole, not before

    report = ingest_brands(file, database, make_pipeline("brands", database, folder))
    assert "finished first" in report.notes[0]
    assert latest(database) == [("Pixar",), ("Laika",)]
    assert query(database, "select count(*) from raw_brands.brands") == [(3,)]
    assert query(database, "select rows_landed from raw_brands.files order by landed_at") == [
        (1,),
        (2,),
    ]
