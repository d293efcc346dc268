"""The TMDB source: over real HTTP to the stand-in, into a real PostgreSQL."""

from __future__ import annotations

import base64
import gzip
import logging
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import copy
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests

from ingestion.errors import UserError
from ingestion.pipeline import LoadReport, make_pipeline
from ingestion.sources import tmdb
from ingestion.sources.tmdb import pull as tmdb_pull
from ingestion.sources.tmdb import resources
from ingestion.sources.tmdb.client import TmdbClient, TmdbUnavailable
from ingestion.sources.tmdb.limits import TokenBucket
from ingestion.sources.tmdb.settings import LAST_PAGE, LIST_FIELDS, SAMPLE_PULLS, TmdbSettings
from ingestion.sources.tmdb.standin import StandIn
from ingestion.sources.tmdb.standin_server import Fault
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

TOKEN = "a-token-of-the-tests"
GENRES = [{"id": 18, "name": "Drama"}, {"id": 35, "name": "Comedy"}]


def film(number: int, **fields: Any) -> dict[str, Any]:
    """An invented film as /movie/{id} gives one."""
    return {
        "adult": False,
        "belongs_to_collection": None,
        "budget": 0,
        "genres": [GENRES[number % 2]],
        "id": number,
        "imdb_id": None,
        "original_language": "en",
        "original_title": f"Film {number}",
        "popularity": 1.5,
        "production_companies": [],
        "production_countries": [],
        "release_date": f"{1950 + number % 70}-06-15",
        "revenue": 0,
        "runtime": 90,
        "spoken_languages": [],
        "status": "Released",
        "title": f"Film {number}",
        "video": False,
        "vote_average": 7,
        "vote_count": 600,
        **fields,
    }


def films(count: int) -> list[dict[str, Any]]:
    return [film(number) for number in range(1, count + 1)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"REQUESTS_PER_SECOND": "0", "CONCURRENCY": "4", "BACKOFF": "0.01"}.items():
        monkeypatch.setenv(f"SOURCES__TMDB__{name}", value)
    monkeypatch.setattr(tmdb, "ENV_FILE", tmp_path / ".env")


@pytest.fixture
def pull(
    database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., LoadReport]:
    """Ingest from a stand-in with a token, as from TMDB; or, without a stand-in, the sample."""

    def ingest(stand_in: StandIn | None, token: str = TOKEN, **arguments: Any) -> LoadReport:
        if stand_in:
            monkeypatch.setenv("TMDB_API_TOKEN", token)
            monkeypatch.setenv("SOURCES__TMDB__BASE_URL", stand_in.base_url)
        else:
            monkeypatch.setattr(tmdb, "find_token", lambda: None)
        pipeline = make_pipeline("tmdb", database, tmp_path / "dlt")
        return tmdb.ingest(database, pipeline=pipeline, **arguments)

    return ingest


@pytest.fixture
def query(database: Target) -> Callable[[str], list[tuple[Any, ...]]]:
    def run(sql: str) -> list[tuple[Any, ...]]:
        with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

    return run


@pytest.fixture
def client() -> Iterator[Callable[..., TmdbClient]]:
    """Make clients of a stand-in; they are closed at the end."""
    made: list[TmdbClient] = []

    def make(stand_in: StandIn, token: str = TOKEN, **settings: Any) -> TmdbClient:
        chosen = TmdbSettings()
        chosen.base_url, chosen.requests_per_second, chosen.backoff = stand_in.base_url, 0, 0.01
        chosen.min_vote_count = 0
        for name, value in settings.items():
            setattr(chosen, name, value)
        made.append(TmdbClient(token, chosen))
        return made[-1]

    yield make
    for each in made:
        each.__exit__()


def asked_for(stand_in: StandIn, since: int = 0) -> list[int]:
    """Films whose details were asked for, from the stand-in's n-th request on."""
    paths = (re.fullmatch(r"/3/movie/(\d+)(\?.*)?", path) for path in stand_in.requests[since:])
    return [int(path[1]) for path in paths if path]


# Pulls


def test_first_pull_lands_every_field_as_its_type(pull, query) -> None:
    known = film(
        603,
        belongs_to_collection={"id": 9, "name": "A collection", "poster_path": "/c.jpg"},
        budget=3_000_000_000,
        genres=GENRES,
        imdb_id="tt0000603",
        origin_country=["FR"],
        popularity=126.393695,
        poster_path="/p.jpg",
        production_companies=[
            {"id": 1, "logo_path": "/l.png", "name": "A company", "origin_country": ""},
            {"id": 2, "logo_path": None, "name": "Another", "origin_country": "FR"},
        ],
        production_countries=[{"iso_3166_1": "FR", "name": "France"}],
        release_date="1999-03-31",
        revenue=463517383,
        runtime=136,
        spoken_languages=[{"english_name": "French", "iso_639_1": "fr", "name": "Français"}],
        vote_average=8.25,
        vote_count=25000,
    )
    unknown = film(
        604, genres=[], release_date="", runtime=None, budget=0, title="Nul\0 byte", vote_average=0
    )
    odd = film(
        605,
        popularity=10**15,
        release_date="2020-02-31",
        runtime="an hour",
        unheard_of=["nul\0", "half a pair \ud83d", 2**70],
        video=None,
    )
    few_votes = film(606, vote_count=499)
    with StandIn([known, unknown, odd, few_votes], token=TOKEN) as stand_in:
        report = pull(stand_in)

    assert report.rows == {"movies": 3, "movie_metrics": 3, "genres": 2}
    columns = (
        "id, imdb_id, title, overview, release_date, runtime, budget, revenue, popularity,"
        " vote_average, vote_count, adult, video, belongs_to_collection__id,"
        " belongs_to_collection__name, extra_fields, pulled_at is not null"
    )
    assert query(f"select {columns} from raw_tmdb.movies order by id") == [
        (
            *(603, "tt0000603", "Film 603", "", date(1999, 3, 31), 136, 3_000_000_000, 463517383),
            *(Decimal("126.393695"), Decimal("8.25"), 25000, False, False, 9, "A collection"),
            {
                "belongs_to_collection": {"poster_path": "/c.jpg"},
                "origin_country": ["FR"],
                "poster_path": "/p.jpg",
                "production_companies": [{"logo_path": "/l.png"}, {}],
            },
            True,
        ),
        (
            *(604, None, "Nul byte", "", None, None, 0, 0, Decimal("1.5"), Decimal(0), 600),
            *(False, False, None, None, None, True),
        ),
        (
            *(605, None, "Film 605", "", None, None, 0, 0, None, Decimal(7), 600, False, None),
            *(None, None),
            {
                "popularity": 10**15,
                "release_date": "2020-02-31",
                "runtime": "an hour",
                "unheard_of": ["nul", "half a pair ?", str(2**70)],
            },
            True,
        ),
    ]
    child = "join raw_tmdb.movies as movies on movies._dlt_id = child._dlt_parent_id"
    assert query(
        "select movies.id, child.id, child.name from raw_tmdb.movies__genres as child"
        f" {child} order by 1, child._dlt_list_idx"
    ) == [(603, 18, "Drama"), (603, 35, "Comedy"), (605, 35, "Comedy")]
    assert query(
        "select movies.id, child.id, child.name, origin_country"
        f" from raw_tmdb.movies__production_companies as child {child} order by 2"
    ) == [(603, 1, "A company", ""), (603, 2, "Another", "FR")]
    assert query("select iso_3166_1, name from raw_tmdb.movies__production_countries") == [
        ("FR", "France")
    ]
    assert query("select * from raw_tmdb.movie_metrics where _dlt_load_id is null") == []
    assert query("select id, name from raw_tmdb.genres order by 1") == [
        (18, "Drama"),
        (35, "Comedy"),
    ]


def test_titles_and_authors_come_with_the_film(pull, query) -> None:
    """In one request a film: what append_to_response brings lands in tables of its own."""
    crew = [
        {"id": 1, "name": "Anna Moor", "department": "Writing", "job": "Novel", "gender": 1},
        {"id": 2, "name": "Al Tide", "department": "Directing", "job": "Director"},
        {"id": 3, "name": "Jo Fell", "department": "Sound", "job": "Foley"},
        {"id": 4, "name": None, "department": "Writing", "job": "Screenplay"},
    ]
    titles = [{"iso_3166_1": "US", "title": "High Tide", "type": ""}, {"title": ""}]
    known = film(
        603,
        credits={"cast": [{"id": 9, "name": "A star"}], "crew": crew},
        alternative_titles={"titles": titles},
    )
    odd = film(604, credits="none", alternative_titles={"titles": 7})
    with StandIn([known, odd, film(605)], token=TOKEN) as stand_in:
        pull(stand_in)
        assert sorted(asked_for(stand_in)) == [603, 604, 605]

    assert query(
        "select movies.id, iso_3166_1, alternative.title, type"
        " from raw_tmdb.movies__alternative_titles as alternative"
        " join raw_tmdb.movies on movies._dlt_id = alternative._dlt_parent_id"
        " order by _dlt_list_idx"
    ) == [(603, "US", "High Tide", ""), (603, None, "", None)]
    assert query(
        "select id, name, department, job from raw_tmdb.movies__crew order by _dlt_list_idx"
    ) == [
        (1, "Anna Moor", "Writing", "Novel"),
        (2, "Al Tide", "Directing", "Director"),
        (4, None, "Writing", "Screenplay"),
    ]
    assert query("select extra_fields from raw_tmdb.movies where extra_fields is not null") == [
        ({"alternative_titles": 7},)
    ]
    assert query("select movie_id, field, reason_code from raw_tmdb.rejects order by 1, 2") == [
        (603, "alternative_titles[1]", "missing"),
        (603, "crew[2].name", "missing"),
        (604, "alternative_titles", "not_a_list"),
        (604, "credits", "not_an_object"),
    ]


def test_the_stand_in_appends_what_is_asked_for() -> None:
    with StandIn.of_sample() as stand_in:

        def get(query: str) -> dict[str, Any]:
            url = f"{stand_in.base_url}/movie/346364?api_key=any{query}"
            return requests.get(url, timeout=5).json()

        assert not {"credits", "alternative_titles"} & set(get(""))
        both = get("&append_to_response=alternative_titles,credits,videos")
    assert both["alternative_titles"] == {"titles": []}
    assert [person["name"] for person in both["credits"]["crew"]] == ["Stephen King"]


def test_tables_are_there_with_their_types_before_the_first_item(pull, query) -> None:
    expected = {f"movies__{name}": set(columns) for name, columns in LIST_FIELDS.items()}
    with StandIn([], token=TOKEN) as stand_in:
        pull(stand_in)
        types = dict(
            query(
                "select table_name || '.' || column_name, data_type"
                " from information_schema.columns where table_schema = 'raw_tmdb'"
            )
        )
        for table, columns in expected.items():
            keys = {"_dlt_root_id", "_dlt_parent_id", "_dlt_list_idx", "_dlt_id"}
            assert {name.split(".")[1] for name in types if name.startswith(f"{table}.")} == (
                columns | keys
            )
        assert types["movies.popularity"] == types["movie_metrics.popularity"] == "numeric"
        assert types["movies.revenue"] == types["movie_metrics.movie_id"] == "bigint"
        assert types["movies.extra_fields"] == "jsonb"
        assert types["genres.id"] == "bigint"

        stand_in.change(7, **film(7, production_countries=[{"iso_3166_1": "FR", "name": "France"}]))
        pull(stand_in, since=date(1900, 1, 1))
    assert query("select iso_3166_1 from raw_tmdb.movies__production_countries") == [("FR",)]
    later = query("select count(*) from information_schema.columns where table_schema = 'raw_tmdb'")
    assert later == [(len(types),)]  # no column came with the data


def test_second_pull_asks_for_what_changed_and_what_is_new(pull, query) -> None:
    today = datetime.now(timezone.utc).date()
    with StandIn(films(30), token=TOKEN) as stand_in:
        assert pull(stand_in).rows["movies"] == 30
        stand_in.change(3, revenue=5, vote_count=700)
        stand_in.change(900, **film(900, vote_count=1))  # changed, but neither landed nor wanted
        stand_in.change(901, **film(901, release_date=f"{today - timedelta(days=40)}"))
        before = len(stand_in.requests)
        assert pull(stand_in).rows == {"movies": 2, "movie_metrics": 2, "genres": 0}
        assert sorted(asked_for(stand_in, before)) == [3, 901]
        assert any(
            f"/3/movie/changes?start_date={today}&end_date={today}" in path
            for path in stand_in.requests[before:]
        )
    assert query("select id, revenue from raw_tmdb.movies where revenue > 0") == [(3, 5)]
    assert query(
        "select vote_count from raw_tmdb.movie_metrics where movie_id = 3 order by pulled_at"
    ) == [(600,), (700,)]
    assert query("select count(*), count(distinct movie_id) from raw_tmdb.movie_metrics") == [
        (32, 31)
    ]


def test_lists_that_shrink_lose_their_child_rows(pull, query) -> None:
    country = {"iso_3166_1": "FR", "name": "France"}
    both = film(1, genres=GENRES, production_countries=[country])
    with StandIn([both, film(2, genres=GENRES)], token=TOKEN) as stand_in:
        pull(stand_in)
        stand_in.change(1, genres=GENRES[1:], production_countries=[])
        pull(stand_in)
    assert query(
        "select movies.id, genres.id, _dlt_list_idx from raw_tmdb.movies__genres as genres"
        " join raw_tmdb.movies as movies on movies._dlt_id = genres._dlt_parent_id order by 1, 3"
    ) == [(1, 35, 0), (2, 18, 0), (2, 35, 1)]
    assert query("select count(*) from raw_tmdb.movies__genres") == [(3,)]
    assert query("select count(*) from raw_tmdb.movies__production_countries") == [(0,)]


def test_films_not_pulled_for_long_are_pulled_again(pull, query) -> None:
    with StandIn(films(3), token=TOKEN) as stand_in:
        pull(stand_in)
        for table, key in (("movies", "id"), ("movie_metrics", "movie_id")):
            query(
                f"update raw_tmdb.{table} set pulled_at = pulled_at - interval '151 days'"
                f" where {key} = 2"
            )
        before = len(stand_in.requests)
        pull(stand_in)
        assert asked_for(stand_in, before) == [2]


def test_killed_pull_goes_on_where_it_was(
    pull, query, database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__TMDB__CHUNK_SIZE", "10")
    monkeypatch.setenv("SOURCES__TMDB__CONCURRENCY", "1")
    script = (
        "from pathlib import Path\n"
        "from ingestion.pipeline import make_pipeline\n"
        "from ingestion.sources import tmdb\n"
        "from ingestion.warehouse.target import Target\n"
        f"target, folder = {database!r}, Path({str(tmp_path / 'dlt')!r})\n"
        "tmdb.ingest(target, pipeline=make_pipeline('tmdb', target, folder))"
    )
    hang = Fault(body="hang", path=r"/movie/25\b", seconds=60, times=1)
    with StandIn(films(40), token=TOKEN, faults=[hang]) as stand_in:
        monkeypatch.setenv("TMDB_API_TOKEN", TOKEN)
        monkeypatch.setenv("SOURCES__TMDB__BASE_URL", stand_in.base_url)
        process = subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT_DIR)
        while 25 not in asked_for(stand_in):
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        process.wait()
        assert query("select count(*) from raw_tmdb.movies") == [(20,)]

        before = len(stand_in.requests)
        report = pull(stand_in)
        assert sorted(asked_for(stand_in, before)) == list(range(21, 41))
        assert report.rows["movies"] == 20
        before = len(stand_in.requests)
        pull(stand_in)
        assert asked_for(stand_in, before) == []
    assert query("select count(*), count(distinct movie_id) from raw_tmdb.movie_metrics") == [
        (40, 40)
    ]


def test_a_pending_package_that_cannot_be_finished_is_pulled_again(
    pull, query, tmp_path: Path, database: Target, client
) -> None:
    with StandIn(films(5), token=TOKEN) as stand_in:
        pull(stand_in, max_movies=3)
        pipeline = make_pipeline("tmdb", database, tmp_path / "dlt")
        chunk = resources.Chunk([4, 5], datetime.now(timezone.utc), {"read_until": "2999-01-01"})
        pipeline.extract(resources.tmdb_source(client(stand_in), chunk))
        for file in (tmp_path / "dlt").rglob("normalize/extracted/**/*movies*.gz"):
            file.write_bytes(b"half a fi")
        report = pull(stand_in)
    assert any("interrupted" in note for note in report.notes)
    assert query("select count(*) from raw_tmdb.movies") == [(5,)]
    assert query("select count(*) from raw_tmdb.movie_metrics") == [(5,)]


def test_what_was_dropped_in_the_warehouse_is_pulled_again(pull, query) -> None:
    """dlt remembers on this disk what has landed; the schema may be there, with the lock alone."""
    with StandIn(films(3), token=TOKEN) as stand_in:
        pull(stand_in)
        query("drop schema raw_tmdb cascade; create schema raw_tmdb; select 1")
        assert pull(stand_in).rows["movies"] == 3
    assert query("select count(*) from raw_tmdb.movies") == [(3,)]


def test_bounded_pulls_go_on_until_all_is_landed(pull) -> None:
    with StandIn(films(12), token=TOKEN) as stand_in:
        landed = []
        for _ in range(3):
            landed.append(pull(stand_in, max_movies=5).rows["movies"])
        assert landed == [5, 5, 2]
        assert sorted(asked_for(stand_in)) == list(range(1, 13))
    with pytest.raises(UserError, match="1 or more"):
        pull(stand_in, max_movies=0)


def test_a_range_of_releases_is_pulled_on_demand(pull) -> None:
    with StandIn(films(60), token=TOKEN) as stand_in:
        arguments = {"since": date(1960, 1, 1), "until": date(1964, 12, 31)}
        assert pull(stand_in, **arguments).rows["movies"] == 5
        assert sorted(asked_for(stand_in)) == [10, 11, 12, 13, 14]
        assert pull(stand_in, **arguments).rows["movies"] == 0  # pulled within the last day
        assert pull(stand_in).rows["movies"] == 60  # the first pull proper is still to be made
    with pytest.raises(UserError, match="later"):
        pull(stand_in, since=date(2020, 1, 2), until=date(2020, 1, 1))


def test_titles_of_brand_releases_are_looked_up_once(pull, query) -> None:
    query("create schema raw_brands")
    query("create table raw_brands.brand_releases (release text)")
    query(
        "insert into raw_brands.brand_releases values"
        " ('FILM 1'), ('A Rare One'), ('A Rare One'), ('No such film'), (null)"
    )
    rare = film(50, title="A Rare One", vote_count=3)
    with StandIn([*films(3), rare], token=TOKEN) as stand_in:
        assert pull(stand_in).rows["movies"] == 4
        searches = [path for path in stand_in.requests if path.startswith("/3/search")]
        assert sorted(re.findall("query=([^&]+)", " ".join(searches))) == [
            "A+Rare+One",
            "No+such+film",
        ]
        before = len(stand_in.requests)
        query("insert into raw_brands.brand_releases values ('Film 2 again')")
        assert pull(stand_in).rows["movies"] == 0
        again = [path for path in stand_in.requests[before:] if path.startswith("/3/search")]
        assert len(again) == 1
        assert "Film+2+again" in again[0]
    assert query("select title from raw_tmdb.movies where id = 50") == [("A Rare One",)]


# What goes wrong


@pytest.mark.parametrize("token", [TOKEN, "0123456789abcdef0123456789abcdef"])
def test_a_refused_token_stops_at_once_and_says_where_one_goes(pull, token: str) -> None:
    with StandIn(films(3), token=token) as stand_in:
        with pytest.raises(UserError, match="TMDB_API_TOKEN") as refused:
            pull(stand_in, token="not-the-right-one")
        assert len(stand_in.requests) == 1
        assert "not-the-right-one" not in str(refused.value)
        assert pull(stand_in, token=token).rows["movies"] == 3


def test_an_error_amid_a_pull_loses_no_more_than_a_chunk(
    pull, query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCES__TMDB__CHUNK_SIZE", "4")
    revoked = Fault(status=401, path=r"/movie/6\b", times=1)
    with StandIn(films(10), token=TOKEN, faults=[revoked]) as stand_in:
        with pytest.raises(UserError, match="refuses the token") as error:
            pull(stand_in)
        assert error.value.__cause__ is None
        assert query("select count(*) from raw_tmdb.movies") == [(4,)]
        assert pull(stand_in).rows["movies"] == 6


def test_films_that_are_gone_are_left_out_and_counted(pull) -> None:
    with StandIn(films(5), token=TOKEN, missing={2, 4}) as stand_in:
        report = pull(stand_in)
        assert report.rows["movies"] == report.rows["movie_metrics"] == 3
        assert any(note.startswith("2 films were left out") for note in report.notes)
        assert pull(stand_in).rows["movies"] == 0


def test_films_that_tmdb_fails_to_give_are_asked_for_by_the_next_pull(pull) -> None:
    broken = Fault(status=500, path=r"/movie/2\b")
    with StandIn(films(5), token=TOKEN, faults=[broken]) as stand_in:
        report = pull(stand_in)
        assert report.rows["movies"] == 4
        assert any("failed to give 1 film" in note for note in report.notes)
        stand_in.faults.clear()
        before = len(stand_in.requests)
        assert pull(stand_in).rows["movies"] == 1
        assert asked_for(stand_in, before) == [2]


def test_films_that_stay_broken_never_end_a_pull(
    pull, query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are; each pull asks for some of them, and lands all others."""
    monkeypatch.setenv("SOURCES__TMDB__MAX_TRIES", "1")
    broken = Fault(status=500, path=r"/movie/([2468]|1\d|2\d)\b")
    with StandIn(films(40), token=TOKEN, faults=[broken]) as stand_in:
        with pytest.raises(UserError, match="no usable answer"):
            pull(stand_in)  # eleven in a row: the server may be down
        assert query("select count(*) from raw_tmdb.movies") == [(5,)], "what came before is kept"
        for _ in range(3):
            try:
                report = pull(stand_in)
            except UserError:
                continue
        assert any("failed to give" in note for note in report.notes)
        assert query("select count(*) from raw_tmdb.movies") == [(16,)]
        stand_in.faults.clear()
        for _ in range(2):
            pull(stand_in)
    assert query("select count(*) from raw_tmdb.movies") == [(40,)]


def test_a_film_that_is_gone_is_asked_for_again_when_a_list_names_it(pull, query) -> None:
    today = datetime.now(timezone.utc).date()
    lately = film(3, release_date=f"{today - timedelta(days=10)}")
    with StandIn([*films(2), lately], token=TOKEN) as stand_in:
        pull(stand_in)
        stand_in.missing = {1, 3}
        stand_in.change(1)
        stand_in.change(3)
        pull(stand_in)
        assert query("select movie_id from raw_tmdb.removed_movies order by 1") == [(1,), (3,)]
        stand_in.changes.clear()
        for _ in range(2):
            before = len(stand_in.requests)
            pull(stand_in)
            assert asked_for(stand_in, before) == []
        query("update raw_tmdb.removed_movies set asked_at = asked_at - interval '151 days'")
        query("update raw_tmdb.movies set pulled_at = pulled_at - interval '151 days' where id = 1")
        before = len(stand_in.requests)
        pull(stand_in)
        assert asked_for(stand_in, before) == [1]
        stand_in.missing.clear()
        stand_in.change(1, title="Back")
        pull(stand_in)
    assert query("select title from raw_tmdb.movies where id = 1") == [("Back",)]


def test_an_outage_ends_the_pull(pull, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCES__TMDB__MAX_TRIES", "2")
    with (
        StandIn(films(30), faults=[Fault(status=503, path=r"/movie/\d+\b")]) as stand_in,
        pytest.raises(UserError, match=r"HTTP 503\)\.\nRun this again later"),
    ):
        pull(stand_in)


def test_another_load_is_told_of_the_first(pull, database: Target) -> None:
    from ingestion.pipeline import one_at_a_time

    with (
        StandIn(films(1), token=TOKEN) as stand_in,
        one_at_a_time("tmdb", database),
        pytest.raises(UserError, match="Another load of tmdb"),
    ):
        pull(stand_in)


def test_wrong_settings_are_named(pull, monkeypatch: pytest.MonkeyPatch) -> None:
    with StandIn([], token=TOKEN) as stand_in:
        monkeypatch.setenv("SOURCES__TMDB__FIRST_RELEASE", "last year")
        with pytest.raises(UserError, match="first_release"):
            pull(stand_in)
        monkeypatch.setenv("SOURCES__TMDB__CHUNK_SIZE", "many")
        with pytest.raises(UserError, match=r"\[sources.tmdb\]"):
            pull(stand_in)


FAULTS = {
    "429 without Retry-After": Fault(status=429, times=2),
    "429 with seconds": Fault(status=429, times=2, headers={"Retry-After": "0"}),
    "429 with a date": Fault(
        status=429,
        times=2,
        headers={"Retry-After": format_datetime(datetime(2020, 1, 1, tzinfo=timezone.utc))},
    ),
    "429 with rubbish": Fault(status=429, times=2, headers={"Retry-After": "soon"}),
    "500": Fault(status=500, times=2),
    "503": Fault(status=503, times=2, headers={"Retry-After": "0"}),
    "504": Fault(status=504, times=2),
    "truncated": Fault(body="truncated", times=2),
    "not JSON": Fault(body="not json", times=2),
    "silence": Fault(body="hang", seconds=2, times=2),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_passes_is_tried_again_and_what_stays_is_given_up(name: str, client) -> None:
    passing = copy(FAULTS[name])
    with StandIn(films(1), faults=[passing]) as stand_in:
        patient = client(stand_in, timeout=0.1, max_tries=3, concurrency=1)
        [(_, found)] = patient.films([1])
        assert found["title"] == "Film 1"
        assert asked_for(stand_in) == [1, 1, 1]

        stand_in.faults = [copy(FAULTS[name])]
        stand_in.faults[0].times = None
        [(_, error)] = patient.films([1])
        assert isinstance(error, TmdbUnavailable)
        assert "3 tries" in str(error)
        assert asked_for(stand_in) == [1] * 6


def test_retry_after_holds_back_every_thread(client, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = []
    monkeypatch.setattr(TokenBucket, "pause", lambda _, seconds: pauses.append(seconds))
    busy = Fault(status=429, times=1, headers={"Retry-After": "7"})
    with StandIn(films(1), faults=[busy]) as stand_in:
        assert client(stand_in).discover(None, None) == [1]
        assert pauses == [7]

        in_an_hour = format_datetime(datetime.now(timezone.utc) + timedelta(hours=1), usegmt=True)
        stand_in.faults = [Fault(status=429, headers={"Retry-After": in_an_hour})]
        with pytest.raises(UserError, match="left alone"):
            client(stand_in).discover(None, None)


def test_permissions_come_at_the_configured_rate() -> None:
    bucket = TokenBucket(10)
    waits = [bucket.take() for _ in range(11)]
    assert waits == sorted(waits)
    assert waits[0] == 0
    assert 0.9 < waits[10] < 1 / 0.9
    bucket.pause(60)
    assert bucket.take() > 59
    assert [TokenBucket(0).take() for _ in range(3)] == [0, 0, 0]


def test_other_refusals_are_explained_and_not_tried_again(client) -> None:
    with StandIn([], token=TOKEN) as stand_in:
        lost = client(stand_in)
        with pytest.raises(UserError, match=r"HTTP 404 The resource .*\nCheck \[sources.tmdb\]"):
            lost.search(["anything"], 1) or lost.get("/no/such/path")
        with pytest.raises(UserError, match="HTTP 422"):
            lost.get("/movie/changes", start_date="2024-01-01", end_date="2024-02-01")
        assert len(stand_in.requests) == 3
    with pytest.raises(UserError, match="blanks"):
        client(stand_in, token="two words")
    with pytest.raises(UserError, match="no web address"):
        client(stand_in, base_url="api.themoviedb.org")


def test_lists_beyond_page_500_are_sliced_by_release_date(client) -> None:
    with StandIn(films(510), page_size=1) as stand_in:
        found = client(stand_in).discover(date(1950, 1, 1), date(2019, 12, 31))
        pages = [int(re.search(r"page=(\d+)", path)[1]) for path in stand_in.requests]
    assert sorted(found) == list(range(1, 511))
    assert max(pages) <= LAST_PAGE
    with StandIn([film(n, release_date="2000-01-01") for n in range(1, 503)], page_size=1) as flood:
        one_day = client(flood)
        assert len(one_day.discover(None, None)) == LAST_PAGE  # TMDB gives no more of one day
        assert len(one_day.notes) == 1


def test_a_film_on_two_pages_is_landed_once(pull, client) -> None:
    with StandIn(films(55), token=TOKEN, repeat=True) as stand_in:
        assert sorted(client(stand_in).discover(None, None)) == list(range(1, 56))
        assert pull(stand_in).rows["movies"] == 55
        assert len(asked_for(stand_in)) == 55


def test_changes_of_months_are_asked_for_in_windows(client) -> None:
    with StandIn.of_sample(as_of=date(2022, 9, 22)) as stand_in:
        since, until = date(2022, 5, 2), date(2022, 9, 22)
        changed = client(stand_in).changed(since, until)
        days = [
            re.search(r"start_date=(\S+)&end_date=([\d-]+)", path).groups()
            for path in stand_in.requests
        ]
    assert changed == {n for day, ids in stand_in.changes.items() if day <= until for n in ids}
    assert len(changed) > 900
    windows = sorted({(date.fromisoformat(a), date.fromisoformat(b)) for a, b in days})
    assert (windows[0][0], windows[-1][1]) == (since, until)
    assert all((end - start).days <= 14 for start, end in windows)
    assert all(before[1] >= after[0] for before, after in pairwise(windows))


# Tokens


def test_the_first_place_with_a_token_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCES__TMDB__API_TOKEN", "third")
    tmdb.ENV_FILE.write_text("# a comment\nexport TMDB_API_TOKEN = 'second'\nOTHER=1\n")
    monkeypatch.setenv("TMDB_API_TOKEN", "first")
    assert tmdb.find_token() == "first"
    monkeypatch.setenv("TMDB_API_TOKEN", "")
    assert tmdb.find_token() == "second"
    tmdb.ENV_FILE.unlink()
    assert tmdb.find_token() == "third"


@pytest.mark.parametrize(
    ("place", "token"),
    [
        ("TMDB_API_TOKEN", "0123456789abcdef0123456789abcdef"),  # a v3 key stands in URLs
        ("SOURCES__TMDB__API_TOKEN", "header.of-a-v4-token.signature"),
    ],
)
def test_a_token_is_nowhere_but_in_requests(  # noqa: PLR0917
    place: str, token: str, database, tmp_path: Path, query, monkeypatch, caplog, capfd
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(place, token)
    faults = [
        Fault(body="truncated", path="/movie/2", times=2),
        Fault(status=401, path="/movie/3", times=1),
    ]
    errors = ""
    with StandIn(films(4), token=token, faults=faults) as stand_in:
        monkeypatch.setenv("SOURCES__TMDB__BASE_URL", stand_in.base_url)
        for _ in range(2):
            pipeline = make_pipeline("tmdb", database, tmp_path / "dlt")
            try:
                report = tmdb.ingest(database, pipeline=pipeline)
            except UserError as error:
                errors += repr(error) + repr(error.__context__) + repr(error.__cause__)
        assert len(stand_in.requests) > 8
    monkeypatch.setenv("SOURCES__TMDB__BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("SOURCES__TMDB__MAX_TRIES", "2")
    with pytest.raises(TmdbUnavailable) as unreachable:
        tmdb.ingest(database, pipeline=make_pipeline("tmdb", database, tmp_path / "dlt"))
    output = capfd.readouterr()
    said = [errors, str(unreachable.value), repr(report), caplog.text, output.out, output.err]
    said += [repr(stand_in.requests), pipeline.last_trace.asstr(verbosity=2)]
    for (state,) in query("select state from raw_tmdb._dlt_pipeline_state"):
        said.append(zlib.decompress(base64.b64decode(state)).decode())
    said.append(repr(query("select * from raw_tmdb.movies")))
    files = [file for file in (tmp_path / "dlt").rglob("*") if file.is_file()]
    assert len(files) > 10
    for file in files:
        content = file.read_bytes()
        said.append(repr(gzip.decompress(content) if file.suffix == ".gz" else content))
    assert "refuses the token" in errors
    assert "GET /3/movie/1" in caplog.text  # urllib3 did write its debug log
    assert not [text[:200] for text in said if token in text]


# The sample


def test_sample_is_landed_in_dated_pulls_and_a_second_run_lands_nothing(
    pull, query, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulls = SAMPLE_PULLS[::2]
    monkeypatch.setattr(tmdb_pull, "SAMPLE_PULLS", pulls)
    first = pull(None)
    assert any("bundled sample" in note for note in first.notes)
    day = "(pulled_at at time zone 'UTC')::date"
    days = query(f"select {day}, count(*) from raw_tmdb.movie_metrics group by 1 order by 1")
    assert [on for on, _ in days] == list(pulls)
    assert days[0][1] == 1197  # all that were there in May 2022; 24 films came later
    assert query("select count(*), count(distinct id) from raw_tmdb.movies") == [(1221, 1221)]
    assert query("select count(*) from raw_tmdb.movies where overview || tagline <> ''") == [(0,)]
    rows, unique = query(
        "select count(*), count(distinct (movie_id, pulled_at)) from raw_tmdb.movie_metrics"
    )[0]
    assert rows == unique == first.rows["movie_metrics"]
    of_avatar_2 = "from raw_tmdb.movie_metrics where movie_id = 76600"
    assert query(f"select {day}, vote_count {of_avatar_2} order by 1") == [
        (date(2023, 3, 29), 6105),  # it came out in December 2022
        (date(2024, 2, 8), 10627),
    ]

    second = pull(None)
    assert second.rows == {"movies": 0, "movie_metrics": 0, "genres": 0}
    assert query("select count(*) from raw_tmdb.movie_metrics") == [(rows,)]


def test_a_token_after_the_sample_begins_anew_and_the_sample_never_follows_it(
    pull, query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tmdb_pull, "SAMPLE_PULLS", SAMPLE_PULLS[-1:])
    monkeypatch.setattr(
        StandIn, "of_sample", lambda token: StandIn([film(11), film(12)], token=token)
    )
    with monkeypatch.context() as without_token:
        without_token.setattr(tmdb, "find_token", lambda: None)
        pull(None)
    monkeypatch.setattr(tmdb, "find_token", lambda: TOKEN)
    with StandIn([film(11, vote_count=900), film(13)], token=TOKEN, missing={12}) as stand_in:
        report = pull(stand_in)
        assert sorted(asked_for(stand_in)) == [11, 12, 13]
    assert any("were from sample" in note for note in report.notes)
    assert query(
        "select vote_count from raw_tmdb.movie_metrics where movie_id = 11 order by 1"
    ) == [
        (600,),
        (900,),
    ]
    report = pull(None)
    assert report.rows["movies"] == 0
    assert any("nothing was pulled" in note for note in report.notes)


# The stand-in is as strict as TMDB


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/movie/7", 200, None),
        ("/movie/7?append_to_response=" + ",".join("abcdefghijklmnopqrst"), 200, None),
        ("/movie/7?append_to_response=" + ",".join("abcdefghijklmnopqrstu"), 400, 27),
        ("/movie/8", 404, 34),
        ("/no/such/path", 404, 34),
        ("/discover/movie?page=500", 200, None),
        ("/discover/movie?page=501", 400, 22),
        ("/discover/movie?page=0", 400, 22),
        ("/discover/movie?page=one", 400, 22),
        ("/discover/movie?primary_release_date.gte=yesterday", 422, 5),
        ("/movie/changes?start_date=2024-01-01&end_date=2024-01-15", 200, None),
        ("/movie/changes?start_date=2024-01-01&end_date=2024-01-16", 422, 20),
        ("/movie/changes?start_date=2024-01-02&end_date=2024-01-01", 422, 20),
        ("/movie/changes?start_date=01/02/2024&end_date=2024-01-01", 422, 5),
        ("/search/movie?query=film", 200, None),
        ("/genre/movie/list", 200, None),
        ("/configuration", 200, None),
        ("/authentication", 200, None),
    ],
)
def test_stand_in_refuses_what_tmdb_refuses(path: str, status: int, code: int | None) -> None:
    with StandIn([film(7)], token=TOKEN) as stand_in:
        url = stand_in.base_url + path
        answer = requests.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5)
        assert answer.status_code == status
        if code:
            assert answer.json()["status_code"] == code
        for wrong in ({}, {"Authorization": "Bearer other"}):
            refused = requests.get(url, headers=wrong, timeout=5)
            assert (refused.status_code, refused.json()["status_code"]) == (401, 7)
        assert requests.get(url, params={"api_key": TOKEN}, timeout=5).status_code == status


def test_stand_in_counts_requests() -> None:
    with StandIn([film(7)], requests_per_second=3) as stand_in, requests.Session() as session:
        url = stand_in.base_url + "/movie/7?api_key=any"
        answers = [session.get(url, timeout=5) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].headers["Retry-After"] == "1"
    assert answers[-1].json()["status_code"] == 25


def test_stand_in_lists_films_as_tmdb_does() -> None:
    some = [film(n, vote_count=n) for n in range(1, 46)]
    some += [film(46, release_date=""), film(47, title="Amélie's 2nd Film"), film(48, adult=True)]
    with StandIn(some) as stand_in:

        def ids(path: str, **params: Any) -> list[int]:
            answer = requests.get(
                stand_in.base_url + path, params={"api_key": "any", **params}, timeout=5
            ).json()
            assert set(answer) == {"page", "results", "total_pages", "total_results"}
            return [found["id"] for found in answer["results"]]

        dated = {"primary_release_date.gte": "1951-01-01", "primary_release_date.lte": "1953-12-31"}
        by_date = "primary_release_date.asc"
        assert ids("/discover/movie", **dated, sort_by=by_date) == [1, 2, 3]
        assert ids("/discover/movie", **dated, sort_by="vote_count.desc") == [3, 2, 1]
        assert ids("/discover/movie", **dated, **{"vote_count.gte": 2}, sort_by=by_date) == [2, 3]
        everything = [ids("/discover/movie", page=page) for page in (1, 2, 3, 4)]
        assert [len(page) for page in everything] == [20, 20, 7, 0]  # without the adult one
        assert any(46 in page for page in everything)
        assert ids("/search/movie", query="amelies film") == [47]
        assert ids("/search/movie", query="film 2nd", year="1901") == []


def test_stand_in_shows_films_as_of_a_day() -> None:
    pulls = [
        {"id": 1, "pulled_on": date(2022, 5, 2), "vote_count": 10, "release_date": "2021-01-01"},
        {"id": 1, "pulled_on": date(2023, 5, 2), "vote_count": 20, "release_date": "2021-01-01"},
        {"id": 1, "pulled_on": date(2024, 5, 2), "vote_count": 20, "release_date": "2021-01-01"},
        {"id": 2, "pulled_on": date(2024, 5, 2), "vote_count": 5, "release_date": "2023-12-24"},
    ]
    latest = [film(1, vote_count=99), film(2), film(3, release_date="1970-01-01")]
    with StandIn(latest, pulls) as stand_in:

        def get(path: str) -> Any:
            return requests.get(f"{stand_in.base_url}{path}?api_key=any", timeout=5).json()

        votes = {}
        for day in (date(2022, 1, 1), date(2022, 6, 1), date(2023, 6, 1), date(2024, 1, 1), None):
            stand_in.as_of = day
            votes[day] = [get(f"/movie/{number}").get("vote_count") for number in (1, 2, 3)]
        assert list(votes.values()) == [
            [10, None, 600],  # the first that is known
            [10, None, 600],
            [20, None, 600],
            [20, 5, 600],
            [99, 600, 600],
        ]
        stand_in.as_of = date(2023, 5, 2)
        assert [change["id"] for change in get("/movie/changes")["results"]] == [1]
        stand_in.as_of = date(2024, 5, 2)
        assert get("/movie/changes")["results"] == []
