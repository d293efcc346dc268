"""Values of TMDB that cannot be right: each costs itself, from the answer to the marts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ingestion.sources.tmdb.settings import FILM_TYPES, LONGEST_TEXT
from ingestion.sources.tmdb.standin import StandIn
from ingestion.tests.built import Built
from ingestion.tests.test_tmdb import TOKEN, film

NONE = object()  # the field is not there
LONG = "x" * 10**6
NAN, INFINITE = float("nan"), float("inf")

# What each kind of column may be sent, and the reason that it is put aside for, if it is
NUMBERS = [
    (None, None),
    (NONE, None),
    (" 5 ", None),
    ("+5", None),
    ("5.0", None),
    (5.0, None),
    (0, None),
    (-5, "negative"),
    ("-5", "negative"),
    (2**70, "too_large"),
    (10**17, "too_large"),
    (10**4000, "too_large"),
    *((value, "not_a_number") for value in (NAN, INFINITE, -INFINITE, True, "", "five", "1,000")),
    *((value, "not_a_number") for value in ("$5", "٣", "5\0", "1" * 50, [], [5], {}, {"a": 5})),
]
TEXTS = [
    (None, None),
    (NONE, None),
    ("", None),
    ("Été \x1b[31m\u202e", None),
    (LONG, "too_long"),
    *((value, "unstorable_text") for value in ("a\0b", "a\ud83d", "\uf026" + "1")),
    *((value, "unstorable_text") for value in ("\uf027" + "2024-01-01T00:00:00",)),
    *((value, "not_text") for value in (5, 5.5, NAN, True, [], ["a"], {}, {"a": "b"})),
]
DATES = [
    (None, None),
    (NONE, None),
    ("", None),
    (" 2020-01-02 ", None),
    *(
        (value, "not_a_date")
        for value in ("soon", "2020-02-31", "2020-1-1", "0000-00-00", "02/01/2020", 5, True, [], {})
    ),
]
TRUTHS = [
    *((value, None) for value in (None, NONE, True, 0, 1, "true", "False")),
    *((value, "not_a_boolean") for value in ("", "yes", 2, 0.5, NAN, [], {})),
]
KINDS = {"bigint": NUMBERS, "decimal": NUMBERS, "text": TEXTS, "date": DATES, "bool": TRUTHS}
COLLECTIONS = [
    (None, []),
    (NONE, []),
    ({}, []),
    ({"id": "7", "name": "A"}, []),
    *((value, ["belongs_to_collection"]) for value in (5, "x", True, [], [{"id": 1}])),
    ({"id": "x", "name": 5}, ["belongs_to_collection.id", "belongs_to_collection.name"]),
    ({"id": 2**70, "name": LONG}, ["belongs_to_collection.id", "belongs_to_collection.name"]),
]
COMPANY = {"id": 5000, "name": "A company", "origin_country": "FR"}
LISTS = [
    (None, []),
    (NONE, []),
    ([], []),
    ([COMPANY, COMPANY], []),
    ([{"id": "5000", "name": "A company"}, {**COMPANY, "name": "Another"}], []),
    *((value, [""]) for value in (5, "x", True, {"id": 1, "name": "A"})),
    *(([COMPANY, value], ["[1]"]) for value in (None, 5, "x", [], [COMPANY])),
    ([{}, COMPANY], ["[0]"]),
    ([{"id": "x", "name": 5}], ["[0]"]),
    ([{"id": None, "name": "No number"}], ["[0].id"]),
    ([{"id": "x", "name": "No number"}], ["[0].id"]),
    ([{"id": 2**70, "name": "No number"}], ["[0].id"]),
    ([{"id": 6001, "name": None}], ["[0].name"]),
    ([{"id": 6002, "name": ""}], ["[0].name"]),
    ([{"id": 6003, "name": " \u00a0"}], ["[0].name"]),
    ([{"id": 6004, "name": 5}], ["[0].name"]),
    ([{"id": 6005, "name": LONG}], ["[0].name"]),
]
CODES = [
    ([{"iso_3166_1": "FR", "iso_639_1": "fr", "name": "x"}], []),
    *((value, [""]) for value in (5, "x", {})),
    ([None, 5], ["[0]", "[1]"]),
    ([{}], ["[0]"]),
    ([{"iso_3166_1": 5, "iso_639_1": [], "name": {}}], ["[0]"]),
    ([{"iso_3166_1": "FR", "iso_639_1": "fr", "name": {}}], ["[0].name"]),
]
CODE = {"production_countries": "iso_3166_1", "spoken_languages": "iso_639_1"}


@dataclass
class Case:
    """A film with one odd field, and the places in it that are to be put aside."""

    film: dict[str, Any]
    places: list[str]

    @property
    def body(self) -> bytes:
        return json.dumps({k: v for k, v in self.film.items() if v is not NONE}).encode()


def _cases() -> Iterator[tuple[str, Any, list[str]]]:
    for name, kind in FILM_TYPES.items():
        if name == "id":
            continue
        for value, reason in KINDS[kind.split("(")[0]]:
            wrong = reason is not None and not (reason == "too_long" and name in ROOMY)
            if name == "title" and reason is None:
                wrong = value in ("", None, NONE)
            yield name, value, [name] if wrong else []
    yield "title", " \u00a0\t", ["title"]
    yield "runtime", 90.5, ["runtime"]
    yield "vote_average", 10.001, ["vote_average"]
    yield "title", "y" * (LONGEST_TEXT + 1), ["title"]
    yield from (("belongs_to_collection", *case) for case in COLLECTIONS)
    for name in ("genres", "production_companies"):
        yield from ((name, value, [name + p for p in places]) for value, places in LISTS)
    for name, code in CODE.items():
        for value, places in CODES:
            yield name, value, [name + place.replace("code", code) for place in places]


def _landed_as_it_is(odd: dict[str, Any], place: str) -> bool:
    """Whether the value is in raw data, where it fits its column and breaks a rule."""
    if place not in FILM_TYPES:
        return "].name" in place and odd[place.partition("[")[0]][0].get("id") is not None
    value = odd[place]
    if FILM_TYPES[place] == "text":
        return value == LONG or (place == "title" and value in (None, NONE, ""))
    return value in (-5, "-5") or (value == 10**17 and FILM_TYPES[place] == "bigint")


ROOMY = {"overview", "tagline", "homepage"}
CASES = {
    number: Case(film(number, vote_count=600) | {field: value}, places)
    for number, (field, value, places) in enumerate(_cases(), 1001)
}
SOUND = range(1, 31)


@pytest.fixture(scope="module")
def odd(target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Built, StandIn]]:
    """A warehouse of its own whose films come from a TMDB with every fault; the first pull made."""
    from dataclasses import replace

    from psycopg2 import sql

    from ingestion.tests.conftest import execute

    name = sql.Identifier("test_odd_films")
    execute(target, sql.SQL("create database {} template template0").format(name))
    folder = tmp_path_factory.mktemp("odd")
    folder.chmod(0o700)
    warehouse = Built(replace(target, dbname=name.string), folder)
    warehouse.write_profile()
    sound = [film(number, vote_count=700) for number in SOUND]
    try:
        with StandIn([*sound, *(film(number) for number in CASES)], token=TOKEN) as stand_in:
            stand_in.bodies = {number: case.body for number, case in CASES.items()}
            warehouse.variables = {
                "TMDB_API_TOKEN": TOKEN,
                "SOURCES__TMDB__BASE_URL": stand_in.base_url,
                "SOURCES__TMDB__REQUESTS_PER_SECOND": "0",
                "SOURCES__TMDB__MAX_TRIES": "2",
                "SOURCES__TMDB__BACKOFF": "0.01",
            }
            lines = str(folder / "some.jsonl")
            warehouse.marquee("generate", "transactions", "--rows", "200", "--out", lines)
            index, releases = folder / "index.csv", folder / "releases.csv"
            head = "Brand,Total,Releases,#1 Release,Lifetime Gross"
            index.write_text(f'{head}\nA house,"$1,000",1,Film 1,"$1,000"\n')
            releases.write_text("brand,position,release\nA house,1,Film 1\nA house,2,Film 2\n")
            files = {"brands": str(index), "releases": str(releases), "transactions": lines}
            for kind, file in files.items():
                warehouse.marquee("ingest", kind, file)
            warehouse.first_run = warehouse.marquee("ingest", "tmdb").stdout
            yield warehouse, stand_in
    finally:
        execute(target, sql.SQL("drop database {} with (force)").format(name))


def test_every_odd_value_costs_itself_is_marked_counted_and_heals(
    odd: tuple[Built, StandIn],
) -> None:
    warehouse, stand_in = odd
    expected = {(number, place) for number, case in CASES.items() for place in case.places}
    assert len(expected) > 150

    # landed: every film, and each odd value beside it
    assert warehouse.one("select count(*) from raw_tmdb.movies") == len(CASES) + len(SOUND)
    found = set(warehouse.rows("select movie_id, field from raw_tmdb.rejects"))
    assert found == expected
    counted = next(line for line in warehouse.first_run.splitlines() if "raw_tmdb.rejects" in line)
    assert f"{len(expected):,} rows" in counted
    shown = warehouse.marquee("rejects").stdout
    assert "not_a_number" in shown
    assert "tmdb" in shown

    # built: green, nobody missing, nothing false
    warehouse.dbt("build")
    marked = "select movie_id, field_name from marts.rejected_movie_values where is_current"
    assert set(warehouse.rows(marked)) == expected
    titles = dict(warehouse.rows("select movie_id, title from marts.dim_movie where movie_id > 0"))
    assert len(titles) == len(CASES) + len(SOUND)
    assert all(titles.values())
    for number, case in CASES.items():
        field = next(iter(case.film.keys() - {"id"} & set(case.places)), None)
        if field in {"runtime", "budget", "revenue"}:
            column = {"runtime": "runtime_minutes"}.get(field, f"{field}_usd")
            value = f"select {column} from marts.dim_movie where movie_id = {number}"
            assert warehouse.one(value) is None
    assert warehouse.one("select runtime_minutes from marts.dim_movie where movie_id = 1") == 90

    # what landed breaks the same rules by the models' judgement alone
    warehouse.execute("create table kept as select * from raw_tmdb.rejects")
    warehouse.execute("delete from raw_tmdb.rejects where movie_id is not null")
    warehouse.dbt("run", "--select", "int_movie_values__rejected", "rejected_movie_values")
    by_models = set(warehouse.rows(marked))
    warehouse.execute("insert into raw_tmdb.rejects select * from kept; drop table kept")
    landed = {(n, p) for n, p in expected if _landed_as_it_is(CASES[n].film, p)}
    assert len(landed) > 30
    assert landed <= by_models <= expected

    # healed: TMDB corrects all
    stand_in.bodies.clear()
    for number in CASES:
        stand_in.change(number)
    again = warehouse.marquee("ingest", "tmdb").stdout
    assert "raw_tmdb.rejects" not in again
    assert "tmdb" not in warehouse.marquee("rejects").stdout
    warehouse.dbt("build")
    assert warehouse.rows(marked) == []
    assert warehouse.one("select count(*) from marts.rejected_movie_values") == len(expected)
    assert warehouse.one("select count(*) from marts.dim_movie where title like 'Untitled%'") == 0


def test_an_old_warehouse_with_bad_rows_heals_and_removed_films_are_marked(
    odd: tuple[Built, StandIn],
) -> None:
    """Rows that an earlier release landed and snapshotted, which no later pull takes back."""
    warehouse, stand_in = odd
    selected = ("build", "--select", "source:tmdb+", "--exclude", "path:models/marts/shared")
    warehouse.execute(
        "update raw_tmdb.movies set title = null, budget = -5, vote_count = -1 where id = 3;"
        "update raw_tmdb.movie_metrics set vote_count = -1, popularity = -1 where movie_id = 3;"
        "update raw_tmdb.movies__genres set name = null, id = null where _dlt_parent_id ="
        " (select _dlt_id from raw_tmdb.movies where id = 4)"
    )
    warehouse.dbt(*selected)
    warehouse.execute(  # as the snapshot of an earlier release has them
        "update snapshots.snp_tmdb__movies set title = null, original_title = null,"
        " budget_usd = -5, revenue_usd = 9223372036854775807 where movie_id = 3"
    )
    stand_in.missing.update({5, 6})
    for number in (3, 4, 5, 6):
        stand_in.change(number, budget=1000)
    said = warehouse.marquee("ingest", "tmdb").stdout
    assert "2 films were left out" in said
    warehouse.dbt(*selected)

    versions = warehouse.rows(
        "select title, budget_usd, revenue_usd, is_current from marts.dim_movie_history"
        " where movie_id = 3 order by valid_from"
    )
    assert ("Untitled film 3", None, None, False) in versions
    assert versions[-1] == ("Film 3", 1000, None, True)
    assert warehouse.rows(
        "select movie_id, removed_at is not null from marts.dim_movie where is_removed order by 1"
    ) == [(5, True), (6, True)]
    metrics = "select count(*) from marts.fct_movie_metrics where movie_id = 5"
    assert warehouse.one(metrics) > 0, "facts keep what was said of it"

    stand_in.changes.clear()  # the day of the changes has gone by
    before = len(stand_in.requests)
    warehouse.marquee("ingest", "tmdb")
    asked = {path.partition("?")[0] for path in stand_in.requests[before:]}
    assert not asked & {"/3/movie/5", "/3/movie/6"}

    stand_in.missing.clear()
    stand_in.change(5, budget=2000)
    warehouse.marquee("ingest", "tmdb")
    warehouse.dbt(*selected)
    assert warehouse.rows("select movie_id from marts.dim_movie where is_removed") == [(6,)]
    assert warehouse.one("select budget_usd from marts.dim_movie where movie_id = 5") == 2000
