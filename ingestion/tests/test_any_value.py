"""Any text and any date that a source may send, through every model of the whole warehouse.

Files and raw rows with the values below land beside the sample's films, and ``dbt build`` has to
be green with them, with nothing lost, doubled or mixed up.
"""

from __future__ import annotations

import csv
import json
import unicodedata
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest
from psycopg2 import sql

from ingestion.sources.transactions.settings import NULL_WORDS
from ingestion.tests.built import Built
from ingestion.tests.conftest import execute
from ingestion.texts import WHITE_SPACE, normalize, trim
from ingestion.warehouse.target import Target

NULL_TEXT = "_dbt_utils_surrogate_key_null_"  # which dbt_utils hashes in place of null
TEXTS = [
    *("Unknown", "unknown", "UNKNOWN", "(unknown)", "(Unknown)", "(unknown)*", "(unknown)**", "*"),
    *(NULL_TEXT, f"{NULL_TEXT}_", f"{NULL_TEXT}-{NULL_TEXT}", NULL_TEXT.upper()),
    *("-", "--", "null", "NULL", "None", "nan", "N/A", "0", "true", "\\N", "\\", "''", "'", '"'),
    *("A", "A-1", "1", "1-2", "a\tb", "a\nb", "a\x01b", "a\u00a0b", "x\u202ey\u202cz", "%", "_"),
    *("'; drop table marts.dim_city; --", "{{ ref('x') }}", "{% raw %}", "$1", "{0}", "=1+1"),
    *("é", "e\u0301", "É", "ß", "ẞ", "SS", "\u0131zmir", "ﬁn", "日本", "שלום"),
    *(
        "👩\u200d👩\u200d👧",
        "a\u200bb",
        "x" * 20_000,
        "x" * 20_000 + "y",
        ".",
        "/",
        "../../x",
        "a,b",
    ),
]
BLANKS = [None, "", " ", "\u00a0", "\u200b", "\ufeff", "\t\r\n", "\u3000\u202f", "\u200f"]
# What a list of brands can hold: a dash is no brand, and no two differ in case only.
BRAND_TEXTS = ["Unknown", "(unknown)", "(unknown)*", NULL_TEXT, f"{NULL_TEXT}_", "A", "A-1", "1"]
BRAND_TEXTS += ["'; drop table marts.dim_brand; --", "é", "日本", "\\", "%", "''", "ß"]
BRAND_TEXTS += ['"Weird Al" Studio', "None", "NULL", "a;b", "a,b", "x" * 900]


def transaction(number: int, **values) -> dict:
    """A good row, of an amount of its own."""
    return {
        "transaction_id": str(uuid.UUID(int=number)),
        "event_ts": "2024-02-29T23:59:59Z",
        "user_id": number,
        "amount": number + 1,
        "status": "APPROVED",
        "currency": "EUR",
    } | values


NAMED = ("merchant", "category", "city", "payment_method")
ANY_TEXT = [transaction(n, **dict.fromkeys(NAMED, text)) for n, text in enumerate(TEXTS)]
BLANK = [transaction(1_000 + n, **dict.fromkeys(NAMED, text)) for n, text in enumerate(BLANKS)]
PADDED = [  # each kind of white space around each text, on a merchant of its own
    transaction(
        2_000 + n,
        merchant=f"{sign}Padded{sign}",
        category=f"{sign}grocery{sign}",
        city=f"{sign}Lyon",
        status=f"approved{sign}",
        payment_method=f"{sign}Card",
        currency=f"eur{sign}{sign}",
    )
    for n, sign in enumerate(WHITE_SPACE)
]
ALIKE = {  # how a merchant is called, and how it is spelled
    "Alike Café": ["Alike Café", "Alike Cafe\u0301", " Alike\u00a0Cafe\u0301\u200d", "Alike  Café"],
    "Alike A B": ["Alike A B", "Alike A  B", "Alike\tA\u2003\u2003B", "\ufeffAlike A\u200b B\n"],
    "Alike Zara": ["Alike Zara", "Alike Zara\u200d", "Alike Zara\u200c\u2060", "\u00adAlike Zara"],
    "Alike 한": ["Alike 한", "Alike \u1112\u1161\u11ab", "Alike\u3000한", "\u3000Alike 한\u034f"],
}
SPELLED = [
    transaction(2_500 + n, merchant=text)
    for n, text in enumerate(text for spellings in ALIKE.values() for text in spellings)
]
OF_NO_SEED = [text for text in TEXTS if text not in NULL_WORDS]
NO_STATUS = [transaction(3_000 + n, status=text) for n, text in enumerate(OF_NO_SEED)]
NO_CURRENCY = [transaction(4_000 + n, currency=text) for n, text in enumerate(OF_NO_SEED)]
MOMENTS = {
    "0001-01-01T00:00:00Z": "ancient_timestamp",
    "1970-01-01T00:00:00Z": "ancient_timestamp",
    "1979-12-31T23:59:59.999999Z": "ancient_timestamp",
    "1980-01-01T00:00:00Z": None,
    "2000-02-29T12:00:00Z": None,
    "9999-12-31T23:59:59Z": "future_timestamp",
}
DATED = [transaction(5_000 + n, event_ts=moment) for n, moment in enumerate(MOMENTS)]
AMOUNTS = {
    ("JPY", 150_000): None,
    ("JPY", 30_000_000): "absurd_amount",
    ("KRW", 99_999_999): None,
    ("EUR", 100_000): None,
    ("EUR", 150_000): "absurd_amount",
    (None, 150_000): "absurd_amount",
    ("KWD", 100_001): "absurd_amount",
}
WORTH = [
    transaction(6_000 + n, currency=currency, amount=amount)
    for n, (currency, amount) in enumerate(AMOUNTS)
]
ROWS = [*ANY_TEXT, *BLANK, *PADDED, *SPELLED, *NO_STATUS, *NO_CURRENCY, *DATED, *WORTH]
# what no file can hold, put into the raw table
RAW_MOMENTS = {
    "infinity": "future_timestamp",
    "-infinity": "ancient_timestamp",
    "0044-03-15 BC": "ancient_timestamp",
    "20000-01-01": "future_timestamp",
}
RELEASE_DATES = {
    "2999-12-31": None,
    "0001-01-01": None,
    "1869-12-31": None,
    "infinity": None,
    "0044-03-15 BC": None,
    "20000-01-01": None,
    "1874-12-09": "1874-12-09",
    "2115-11-18": "2115-11-18",
    "2024-02-29": "2024-02-29",
}


@pytest.fixture(scope="module")
def warehouse(
    built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Built]:
    """A copy of the built warehouse with all that landed, built anew."""
    name, template = sql.Identifier(f"test_{uuid.uuid4().hex[:12]}"), built.target.dbname
    create = sql.SQL("create database {} template {}").format(name, sql.Identifier(template))
    execute(target, create)
    folder = tmp_path_factory.mktemp("any_value")
    copy = Built(replace(target, dbname=name.string), folder)
    copy.write_profile()
    try:
        tables = ("transactions", "rejects", "files", "_dlt_loads")
        copy.execute("truncate " + ", ".join(f"raw_transactions.{table}" for table in tables))
        _land(copy)
        copy.dbt("build", "--quiet", "--full-refresh")
        yield copy
    finally:
        execute(target, sql.SQL("drop database {} with (force)").format(name))


def _land(copy: Built) -> None:
    lines = copy.folder / "any.jsonl"
    lines.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in ROWS))
    copy.marquee("ingest", "transactions", str(lines))
    with (copy.folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["Brand", "Total", "Releases"])
        writer.writerows([text, n + 1, 1] for n, text in enumerate(BRAND_TEXTS))
        writer.writerow(["\u200bPadded\u00a0", 99, 1])
    copy.marquee("ingest", "brands", str(copy.folder / "index.csv"))
    with (copy.folder / "releases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Brand", "Position", "Release"])
        # joined by hyphens these two are one text
        writer.writerows([["A", 1, "2-x"], ["A-1", 2, "x"]])
        writer.writerows([text, 1, text] for text in BRAND_TEXTS if text not in ("A", "A-1"))
        writer.writerow(["\u3000Padded\ufeff", 1, "\u2007Padded\u202f"])
    copy.marquee("ingest", "releases", str(copy.folder / "releases.csv"))
    for n, moment in enumerate(RAW_MOMENTS):
        copy.execute(
            "insert into raw_transactions.transactions (transaction_id, event_ts, user_id, amount,"
            " _file_name, _file_checksum, _file_line, _dlt_load_id)"
            f" select '{uuid.UUID(int=7_000 + n)}', '{moment}', 1, 1, _file_name, _file_checksum,"
            f" {len(ROWS) + n + 1}, _dlt_load_id from raw_transactions.files;"
            " update raw_transactions.files set lines_read = lines_read + 1,"
            " rows_landed = rows_landed + 1, last_line = last_line + 1"
        )
    films = [movie for (movie,) in copy.rows("select id from raw_tmdb.movies order by id limit 99")]
    texts = [text for text in TEXTS if len(text) < 1_000]
    for film, text in zip(films, texts, strict=False):
        columns = ("title", "original_title", "original_language", "status", "imdb_id")
        given = ", ".join(f"{column} = {_quoted(text)}" for column in columns)
        collection = f"belongs_to_collection__name = {_quoted(text)}"
        copy.execute(f"update raw_tmdb.movies set {given}, {collection} where id = {film}")
    for movie, given in zip(reversed(films), RELEASE_DATES, strict=False):
        copy.execute(f"update raw_tmdb.movies set release_date = '{given}' where id = {movie}")
    companies = copy.rows("select distinct id from raw_tmdb.movies__production_companies limit 50")
    for (company,), text in zip(companies, texts, strict=False):
        copy.execute(
            f"update raw_tmdb.movies__production_companies set name = {_quoted(text)},"
            f" origin_country = {_quoted(text)} where id = {company}"
        )
    genres = [genre for (genre,) in copy.rows("select id from raw_tmdb.genres order by id")]
    for genre, text in zip(genres, texts, strict=False):
        for table in ("genres", "movies__genres"):
            copy.execute(f"update raw_tmdb.{table} set name = {_quoted(text)} where id = {genre}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _amounts(rows: list[dict], field: str, how=lambda text: text) -> dict[str | None, Decimal]:
    """Sum of amounts by a field's normalized text, None where nothing is left of it."""
    sums: Counter[str | None] = Counter()
    for row in rows:
        text = row.get(field)
        sums[how(normalize("" if text in (None, *NULL_WORDS) else text)) or None] += row["amount"]
    return dict(sums)


FACTS = [*ANY_TEXT, *BLANK, *PADDED, *SPELLED]
FACTS += [row for row in DATED if not MOMENTS[row["event_ts"]]]
FACTS += [row for row in WORTH if not AMOUNTS[row["currency"], row["amount"]]]


def test_both_rules_of_one_spelling_are_one(warehouse: Built):
    """The macro and its twin, on each sign around, between and doubled, and on letters in parts."""
    signs = [chr(code) for code in [*range(1, 0x3200), 0xFEFF, 0xFFA0, *range(0xFFF0, 0xFFFE)]]
    assert {sign for sign in signs if trim(f"{sign}x{sign}") != f"{sign}x{sign}"} == {*WHITE_SPACE}
    blank = {sign for sign in signs if sign.isspace() or unicodedata.category(sign) == "Zs"}
    assert blank <= {*WHITE_SPACE}
    texts = [f"{sign}x{sign}" for sign in signs] + [f"x{sign}y" for sign in signs]
    texts += [f"x {sign}y" for sign in signs] + [f"é{sign}{sign}\u3000y" for sign in signs]
    texts += [unicodedata.normalize("NFD", f"{sign}{chr(ord(sign) + 1)}") for sign in signs]
    texts += [text for text in TEXTS if len(text) < 1_000] + [text for text in BLANKS if text]
    compiled = warehouse.dbt(
        *("compile", "--quiet", "--inline", "select {{ normalize_text('sent') }} from sent_texts")
    ).stdout.split("select", 1)[1]
    # what a program prints has no carriage return; that sign is tried with the rows that land here
    texts = [text for text in texts if "\r" not in text]
    values = ", ".join(f"({n}, {_quoted(text)})" for n, text in enumerate(texts))
    found = warehouse.rows(
        f"with sent_texts as (select * from (values {values}) as listed (n, sent))"
        f" select n, ({'select' + compiled.rsplit('from', 1)[0]}) from sent_texts order by n"
    )
    wrong = {
        ascii(texts[n]): (ascii(text), ascii(normalize(texts[n])))
        for n, text in found
        if (text or "") != normalize(texts[n])
    }
    assert not wrong
    assert len(found) == len(texts)


def test_spellings_that_look_alike_are_one_merchant(warehouse: Built):
    """The spelling that landed stays in raw."""
    keys = warehouse.rows(
        "select merchant_name, count(*), count(distinct merchant_key) from marts.fct_transactions"
        " inner join marts.dim_merchant using (merchant_key)"
        " where merchant_name like 'Alike%' group by 1 order by 1"
    )
    assert keys == [(name, len(spellings), 1) for name, spellings in sorted(ALIKE.items())]
    landed = {
        text
        for (text,) in warehouse.rows(
            "select merchant from raw_transactions.transactions where merchant ~ 'Alike'"
        )
    }
    assert landed == {text for spellings in ALIKE.values() for text in spellings}


@pytest.mark.parametrize(
    ("dimension", "column", "field", "how"),
    [
        ("merchant", "merchant_name", "merchant", str),
        ("category", "category_name", "category", str),
        ("city", "city_name", "city", str),
        ("payment_method", "payment_method", "payment_method", str.lower),
    ],
)
def test_every_text_is_a_member_of_its_own(warehouse: Built, dimension, column, field, how):
    expected = _amounts(FACTS, field, how)
    found = warehouse.rows(
        f"select case when not is_unknown then {column} end, sum(amount)"
        f" from marts.fct_transactions inner join marts.dim_{dimension} using ({dimension}_key)"
        " group by 1"
    )
    # a text that has the unknown member's name is shown with an asterisk more
    shown = {text: f"{text}*" for text in expected if text and text.strip("*") == "(unknown)"}
    assert dict(found) == {shown.get(text, text): amount for text, amount in expected.items()}
    assert warehouse.rows(f"select {column} from marts.dim_{dimension} where is_unknown") == [
        ("(unknown)",)
    ]


def test_marts_hold_each_sum_once(warehouse: Built):
    merchants = _amounts([row for row in FACTS if row["currency"]], "merchant")
    total = sum(row["amount"] for row in FACTS)
    for mart, amount in (
        ("daily_transactions", "amount"),
        ("hourly_transactions", "amount"),
        ("daily_merchants", "amount"),
        ("merchant_ranking", "total_amount"),
    ):
        assert warehouse.one(f"select sum({amount}) from marts.{mart}") == total, mart
    assert (
        warehouse.one(
            "select sum(total_amount) from marts.merchant_ranking where merchant_name = 'Unknown'"
        )
        == merchants["Unknown"]
    )
    assert (
        warehouse.one(
            "select sum(total_amount) from marts.merchant_ranking where merchant_name = '(unknown)'"
        )
        == merchants[None]
    )
    assert warehouse.rows(
        "select distinct merchant_name, currency_code, amount from marts.daily_merchants"
        " where merchant_name ilike '%padded%'"
    ) == [("Padded", "EUR", sum(row["amount"] for row in PADDED))]


def test_rows_that_cannot_be_true_are_marked_with_their_reason(warehouse: Built):
    wanted = {row["transaction_id"]: MOMENTS[row["event_ts"]] for row in DATED}
    wanted |= {row["transaction_id"]: AMOUNTS[row["currency"], row["amount"]] for row in WORTH}
    wanted |= {
        str(uuid.UUID(int=7_000 + n)): reason for n, reason in enumerate(RAW_MOMENTS.values())
    }
    wanted |= {row["transaction_id"]: "unknown_status" for row in NO_STATUS}
    wanted |= {row["transaction_id"]: "unknown_currency" for row in NO_CURRENCY}
    reasons = {row: reason for row, reason in wanted.items() if reason}
    found = warehouse.rows("select transaction_id, reason_code from marts.rejected_transactions")
    assert dict(found) == reasons
    facts = {row for (row,) in warehouse.rows("select transaction_id from marts.fct_transactions")}
    assert facts == {row["transaction_id"] for row in FACTS}


def test_a_text_as_a_code_of_a_known_kind_counts(warehouse: Built):
    """Whatever the white space around it."""
    assert warehouse.one(
        "select count(*) from marts.fct_transactions inner join marts.dim_transaction_status"
        " using (transaction_status_key) inner join marts.dim_merchant using (merchant_key)"
        " where merchant_name = 'Padded' and is_approved and currency_code = 'EUR'"
    ) == len(PADDED)


def test_the_calendar_is_the_same_whatever_arrives(warehouse: Built):
    assert warehouse.rows(
        "select min(date_day)::text, max(date_day)::text, count(*) from marts.dim_date"
    ) == [("1870-01-01", "2120-12-31", 91_677)]
    assert not warehouse.one("select count(*) from marts.fct_transactions where date_key = 0")
    assert warehouse.one(
        "select count(*) from marts.fct_transactions inner join marts.dim_date using (date_key)"
        " where date_day = event_date"
    ) == len(FACTS)


def test_films_have_a_release_date_that_can_be_one(warehouse: Built):
    found = warehouse.rows(
        "select movies.release_date::text, marts.release_date::text, dates.date_day::text"
        " from (select * from raw_tmdb.movies order by id limit 99) as movies"
        " inner join marts.dim_movie as marts on movies.id = marts.movie_id"
        " inner join marts.dim_date as dates on marts.release_date_key = dates.date_key"
        f" order by movies.id desc limit {len(RELEASE_DATES)}"
    )
    assert found == [(given, used, used) for given, used in RELEASE_DATES.items()]


def test_brands_of_any_name_have_their_releases(warehouse: Built):
    names = {name for (name,) in warehouse.rows("select brand_name from marts.dim_brand")}
    assert {*BRAND_TEXTS, "Padded", "(unknown)"} - names <= {"(unknown)"}, {*BRAND_TEXTS} - names
    audited = warehouse.rows("select brand_name, release_title from marts.brand_match_audit")
    listed = [(text, text) for text in BRAND_TEXTS if text not in ("A", "A-1")]
    assert Counter(audited) == Counter([*listed, ("A", "2-x"), ("A-1", "x"), ("Padded", "Padded")])
