"""Constants of the TMDB source: TMDB's limits, the raw tables' columns, what can be configured."""

from __future__ import annotations

from datetime import date
from typing import Any

from dlt.common.configuration import configspec
from dlt.common.configuration.specs import BaseConfiguration

from ingestion.warehouse.paths import PROJECT_DIR

# TMDB's limits (its API reference; status codes from its list of errors)
LAST_PAGE = 500  # no list goes further, whatever its total_pages says
CHANGES_DAYS = 14  # longest window of /movie/changes
FIRST_FILM = date(1874, 1, 1)  # TMDB's oldest film was shot that December
LAST_FILM = date(2100, 1, 1)

# Pulls of the bundled sample: about every half year, each on a day the sample has a full pull of
SAMPLE_DIR = PROJECT_DIR / "ingestion" / "sample" / "tmdb"
SAMPLE_PULLS = (
    date(2022, 5, 2),
    date(2022, 9, 22),
    date(2023, 3, 29),
    date(2023, 10, 13),
    date(2024, 2, 8),
)

Columns = dict[str, Any]  # a column's hints, as dlt takes them
DECIMALS = {"decimal(18, 6)": (18, 6), "decimal(6, 3)": (6, 3)}


def columns(**types: str) -> Columns:
    """Columns of a table as dlt wants them, each with a dictionary of its own: dlt writes in it."""
    made: Columns = {}
    for name, kind in types.items():
        if kind in DECIMALS:
            precision, scale = DECIMALS[kind]
            made[name] = {"data_type": "decimal", "precision": precision, "scale": scale}
        else:
            made[name] = {"data_type": kind}
    return made


# Top-level fields of /movie/{id} that have a column of their own
FILM_TYPES = {
    "id": "bigint",
    "imdb_id": "text",
    "title": "text",
    "original_title": "text",
    "original_language": "text",
    "overview": "text",
    "tagline": "text",
    "homepage": "text",
    "status": "text",
    "release_date": "date",
    "runtime": "bigint",
    "budget": "bigint",
    "revenue": "bigint",
    "popularity": "decimal(18, 6)",
    "vote_average": "decimal(6, 3)",
    "vote_count": "bigint",
    "adult": "bool",
    "video": "bool",
}
FILM_FIELDS = columns(**FILM_TYPES)
COLLECTION_FIELDS = columns(id="bigint", name="text")
MOVIES_COLUMNS = columns(
    **FILM_TYPES,
    belongs_to_collection__id="bigint",
    belongs_to_collection__name="text",
    extra_fields="json",
    pulled_at="timestamp",
)
# List fields of /movie/{id}: child tables movies__<field>
LIST_FIELDS = {
    "genres": columns(id="bigint", name="text"),
    "production_companies": columns(id="bigint", name="text", origin_country="text"),
    "production_countries": columns(iso_3166_1="text", name="text"),
    "spoken_languages": columns(iso_639_1="text", english_name="text", name="text"),
    "alternative_titles": columns(iso_3166_1="text", title="text", type="text"),
    "crew": columns(id="bigint", name="text", department="text", job="text"),
}
# Lists that TMDB gives with the film where append_to_response asks for them, in one request: where
# they are in the answer. Nothing but their columns is kept: a cast has hundreds of entries.
APPENDED = {"alternative_titles": ("alternative_titles", "titles"), "crew": ("credits", "crew")}
AUTHORS = {"Writing", "Directing"}  # departments whose credits are kept
METRICS_COLUMNS = columns(
    movie_id="bigint",
    pulled_at="timestamp",
    popularity="decimal(18, 6)",
    vote_average="decimal(6, 3)",
    vote_count="bigint",
    revenue="bigint",
)
GENRES_COLUMNS = columns(id="bigint", name="text")
REJECTS_COLUMNS = columns(
    path="text",
    field="text",
    movie_id="bigint",
    reason_code="text",
    reason="text",
    raw_text="text",
    pulled_at="timestamp",
)
REMOVED_COLUMNS = columns(movie_id="bigint", asked_at="timestamp")

# What a value that fits its column has to be as well. macros/titles says the same to the
# models, and a test holds both equal
AT_LEAST = dict.fromkeys(
    ("runtime", "budget", "revenue", "popularity", "vote_average", "vote_count"), 0
)
AT_MOST = {
    "runtime": 10**6,  # minutes; the longest film has 51,420
    "budget": 10**11,  # US dollars
    "revenue": 10**11,
    "popularity": 10**9,
    "vote_average": 10,
    "vote_count": 10**9,
}
NEEDED = {
    *("title", "genres.id", "genres.name", "production_companies.id", "production_companies.name"),
    *("production_countries.iso_3166_1", "spoken_languages.iso_639_1"),
    *("alternative_titles.title", "crew.id", "crew.name"),
}
LONGEST_TEXT = 1000  # characters of a title or a name
LONGEST_REJECT = 10_000  # characters kept of a value that is put aside


@configspec
class TmdbSettings(BaseConfiguration):
    """What ``[sources.tmdb]`` in ``.dlt/config.toml`` (or ``SOURCES__TMDB__<NAME>``) can set."""

    base_url: str = "https://api.themoviedb.org/3"
    requests_per_second: float = 40.0
    """Requests started in a second, all threads together; 0 is no limit."""
    concurrency: int = 16
    """Threads that wait for answers: enough for the full rate up to 0.4 s an answer."""
    timeout: float = 30.0
    """Seconds that a request may take in all, until the last byte of its answer has come."""
    max_body_mb: float = 8.0
    """Largest answer that is read, in MB of unpacked JSON; TMDB's have some ten thousand bytes."""
    max_tries: int = 6
    backoff: float = 0.5
    """Seconds before the second try; doubled for every further one, less up to half at random."""
    min_vote_count: int = 500
    """Films with fewer votes are not discovered. 500 leaves about 5,000 of TMDB's million films."""
    include_adult: bool = False
    first_release: str | None = None
    """Day (YYYY-MM-DD) from which on films are discovered; unset: all, those without a date too."""
    new_release_days: int = 365
    """Later pulls discover films released since the last pull and this many days before: a film
    reaches ``min_vote_count`` only some time after its release."""
    max_age_days: int = 150
    """Films not pulled for so long are pulled again: TMDB wants copies refreshed in six months."""
    chunk_size: int = 1000
    """Films landed in one load: what an interrupted pull can lose."""
    max_lookups: int = 1000
    """Titles of brand releases that one pull looks up with ``/search/movie``."""
