"""Films from TMDB, the community's film database, into ``raw_tmdb``.

``ingest`` pulls from the TMDB API where it finds a token, and otherwise lands the bundled sample,
which the same client reads over HTTP from a stand-in server (``standin.py``). A token is looked for
in this order:

1. the environment variable ``TMDB_API_TOKEN``,
2. ``TMDB_API_TOKEN`` in ``.env`` in the project's folder,
3. dlt's secrets: ``SOURCES__TMDB__API_TOKEN``, or ``api_token`` under ``[sources.tmdb]`` in
   ``.dlt/secrets.toml``.

A v4 read access token and a v3 API key will both do. The token stays in the client: it is in no
message, log, trace, state or table. What else can be set is in ``settings.TmdbSettings``.

How a pull works:

- The first one discovers films by release date and vote count, and asks for the details of each.
- Later ones ask ``/movie/changes`` which films have changed since the last pull and refresh those
  that are landed, and discover what was released lately. Films not pulled for ``max_age_days`` are
  refreshed as well.
- A film that TMDB has no more (404) is remembered in ``removed_movies``, and asked for again once a
  list names it, or after ``max_age_days``.
- Then titles that brand releases name, and no landed film has, are searched for, each once.

Films are landed in chunks. dlt's state, which is committed with each chunk, says when the pull
under way began; what the warehouse holds from since then is done. So a pull that is killed loses a
chunk, and the next one does the rest.

State (``sources.tmdb``): ``origin``, the API's base URL or ``sample``; ``begun``, when the pull
under way began; ``read_until``, the day the last finished pull began, from which the next one asks
for changes; ``owed``, films that TMDB failed to give; ``looked_up``, titles searched for.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from typing import Any

import dlt
from dlt.common.configuration import resolve_configuration
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from ingestion.errors import UserError, error_line
from ingestion.pipeline import LoadReport, make_pipeline, one_at_a_time
from ingestion.progress import task
from ingestion.sources.tmdb.client import TmdbClient, TmdbUnavailable
from ingestion.sources.tmdb.rows import Reject, film_row, genre_rows
from ingestion.sources.tmdb.settings import (
    GENRES_COLUMNS,
    LIST_FIELDS,
    METRICS_COLUMNS,
    MOVIES_COLUMNS,
    REJECTS_COLUMNS,
    REMOVED_COLUMNS,
    SAMPLE_PULLS,
    TmdbSettings,
)
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

ENV_FILE = PROJECT_DIR / ".env"
SAMPLE = "sample"  # the origin of films that came from the stand-in
MOST_FAILURES = 10  # films in a row that TMDB may fail to give before a pull gives up
NEVER = datetime.min.replace(tzinfo=timezone.utc)
ROOT_TABLES = ("movies", "movie_metrics", "genres")
BRAND_TITLES = {"raw_brands.brand_releases": "release", "raw_brands.brands": "top_release"}
LOOK_UP_AT_ONCE, CANDIDATES = 100, 3  # titles searched for in one go, films taken of each search
# Columns are declared and all other fields go to extra_fields: what is new in a row is a bug
CONTRACT: Any = {"tables": "evolve", "columns": "freeze", "data_type": "freeze"}


# What is landed


@dataclass
class Chunk:
    """What one load of a pull is to land.

    Attributes:
        ids: the films, each once.
        pulled_at: when the pull was made (with time zone).
        state: this source's state once the chunk is landed.
        genres: the list of genres, where it has to be landed as well.
        rejects: what was put aside of lists before.
        interrupted: the state if TMDB stops to give films amid the chunk.
        owed: films that TMDB failed to give before. What they do ends no pull.
        failed_in_a_row: films that TMDB failed to give, up to this chunk; then up to its end.
        advance: told of each film done.
        missing: films that TMDB turned out not to have (404).
        failed: films that it failed to give.
        stopped: why the chunk was ended before its last film.
        left_out: films that were not asked for then, and are not owed.
    """

    ids: list[int]
    pulled_at: datetime
    state: dict[str, Any]
    genres: list[dict[str, Any]] | None = None
    rejects: list[Reject] = field(default_factory=list)
    interrupted: dict[str, Any] = field(default_factory=dict)
    owed: frozenset[int] = frozenset()
    failed_in_a_row: int = 0
    advance: Callable[[int], None] = lambda _: None
    missing: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    stopped: TmdbUnavailable | None = None
    left_out: set[int] = field(default_factory=set)


@dlt.source(name="tmdb", max_table_nesting=1)
def tmdb_source(client: TmdbClient, chunk: Chunk) -> Any:
    """The films of a chunk, their metrics, what was put aside, and the genres if it has them."""

    @dlt.resource(name="answers", selected=False)
    def answers() -> Iterator[dict[str, list[Any]]]:
        """Rows by table, as TMDB answers; the first answer is empty, for tables to be made."""
        yield {}
        if chunk.rejects:
            yield {"rejects": [reject.row(chunk.pulled_at) for reject in chunk.rejects]}
        done = set()
        with closing(client.films(chunk.ids)) as films:
            for film_id, film in films:
                chunk.advance(1)
                done.add(film_id)
                if not isinstance(film, TmdbUnavailable):
                    chunk.failed_in_a_row = 0
                    yield _rows_of(film_id, film, chunk)
                    continue
                chunk.failed.append(film_id)
                chunk.failed_in_a_row += 1
                if chunk.failed_in_a_row > MOST_FAILURES:
                    chunk.stopped = film
                    break
        _keep_state(chunk, done)

    @dlt.transformer(
        data_from=answers,
        name="movies",
        write_disposition="merge",
        primary_key="id",
        columns=MOVIES_COLUMNS,
        schema_contract=CONTRACT,
        nested_hints={
            name: dlt.mark.make_nested_hints(columns=columns)
            for name, columns in LIST_FIELDS.items()
        },
    )
    def movies(answer: dict[str, list[Any]]) -> Iterator[Any]:
        """One row a film, as it was when last pulled; its lists are in child tables."""
        yield answer.get("movies", []) if answer else dlt.mark.materialize_table_schema()

    @dlt.transformer(
        data_from=answers,
        name="movie_metrics",
        write_disposition="merge",  # rows are only added, but a repeated load adds none twice
        primary_key=("movie_id", "pulled_at"),
        columns=METRICS_COLUMNS,
        schema_contract=CONTRACT,
    )
    def movie_metrics(answer: dict[str, list[Any]]) -> Iterator[Any]:
        """One row a film and pull: what moves from day to day."""
        if answer:
            films = [{**film, "movie_id": film["id"]} for film in answer.get("movies", [])]
            yield [{name: film[name] for name in METRICS_COLUMNS} for film in films]
        else:
            yield dlt.mark.materialize_table_schema()

    @dlt.transformer(
        data_from=answers,
        name="rejects",
        write_disposition="merge",  # as metrics
        primary_key=("path", "field", "pulled_at"),
        columns=REJECTS_COLUMNS,
        schema_contract=CONTRACT,
    )
    def rejects(answer: dict[str, list[Any]]) -> Iterator[Any]:
        """One row a value that cannot be right, and pull."""
        yield answer.get("rejects", []) if answer else dlt.mark.materialize_table_schema()

    @dlt.transformer(
        data_from=answers,
        name="removed_movies",
        write_disposition="merge",  # as metrics
        primary_key=("movie_id", "asked_at"),
        columns=REMOVED_COLUMNS,
        schema_contract=CONTRACT,
    )
    def removed_movies(answer: dict[str, list[Any]]) -> Iterator[Any]:
        """One row a film and pull that found TMDB without it."""
        yield answer.get("removed_movies", []) if answer else dlt.mark.materialize_table_schema()

    @dlt.resource(
        name="genres",
        write_disposition="merge",
        primary_key="id",
        columns=GENRES_COLUMNS,
        schema_contract=CONTRACT,
    )
    def genres() -> Iterator[Any]:
        """TMDB's list of genres."""
        yield chunk.genres or dlt.mark.materialize_table_schema()

    kept = [movies, movie_metrics, rejects, removed_movies]
    return [answers, *kept, *([] if chunk.genres is None else [genres()])]


def _rows_of(film_id: int, film: dict[str, Any] | None, chunk: Chunk) -> dict[str, list[Any]]:
    if film is None:
        chunk.missing.append(film_id)
        return {"removed_movies": [{"movie_id": film_id, "asked_at": chunk.pulled_at}]}
    row, rejects = film_row(film, chunk.pulled_at)
    return {"movies": [row], "rejects": [reject.row(chunk.pulled_at) for reject in rejects]}


def _keep_state(chunk: Chunk, done: set[int]) -> None:
    """Put the state of the chunk in place, and remember which films TMDB owes.

    Those that it has failed to give come last, so that they do not keep others waiting for ever.
    """
    state = dlt.current.source_state()
    before = dict.fromkeys([*state.get("owed", []), *chunk.owed])
    chunk.left_out = set(chunk.ids) - done - chunk.owed
    owed = [film_id for film_id in before if film_id not in done] + chunk.failed
    state.clear()
    state.update(chunk.interrupted if chunk.left_out else chunk.state, owed=owed)


# Pulls


def ingest(
    target: Target,
    *,
    since: date | None = None,
    until: date | None = None,
    max_movies: int | None = None,
    pipeline: dlt.Pipeline | None = None,
) -> LoadReport:
    """Bring ``raw_tmdb`` up to date with TMDB, or with the bundled sample where there is no token.

    Args:
        target: the warehouse.
        since: with ``until``, do not bring up to date, but pull the films released from ``since``
            to ``until`` (both included; one will do), except those pulled within the last day.
        until: see ``since``.
        max_movies: ask for so many films at most; the next call goes on where this one stopped.
        pipeline: to be used in place of the project's own.

    Returns:
        Rows of ``movies``, ``movie_metrics`` and ``genres`` landed (new or refreshed), and notes.

    Raises:
        UserError: TMDB refuses the token or a request, or gives no answer; an argument or a
            setting is wrong; another load of this source is under way.
    """
    started = time.monotonic()
    if since and until and since > until:
        raise UserError(f"{since} is later than {until}.\nGive the earlier day first.")
    if max_movies is not None and max_movies < 1:
        raise UserError("No films were asked for.\nGive 1 or more as the most films to pull.")
    settings = _settings()
    with one_at_a_time("tmdb", target):
        job = _Ingestion(target, pipeline or make_pipeline("tmdb", target), settings, max_movies)
        job.finish_interrupted_load()
        token = find_token()
        if token:
            job.pull_from_tmdb(token, since, until)
        else:
            job.land_sample(since, until)
        job.make_tables()
    job.report.seconds = time.monotonic() - started
    return job.report


def find_token() -> str | None:
    """The token for TMDB, from the first place that has one (see the top of this module)."""
    token = os.environ.get("TMDB_API_TOKEN")
    if not token and ENV_FILE.is_file():
        for line in ENV_FILE.read_text(encoding="utf-8").splitlines():
            name, _, value = line.strip().removeprefix("export ").partition("=")
            if name.strip() == "TMDB_API_TOKEN":
                token = value.strip().strip("'\"")
    return token or dlt.secrets.get("sources.tmdb.api_token") or None


class _Ingestion:
    """One call of ``ingest``."""

    def __init__(
        self,
        target: Target,
        pipeline: dlt.Pipeline,
        settings: TmdbSettings,
        max_movies: int | None,
    ) -> None:
        self.target, self.pipeline, self.settings = target, pipeline, settings
        self.left = sys.maxsize if max_movies is None else max_movies  # films still allowed
        self.report = LoadReport("tmdb", rows=dict.fromkeys(ROOT_TABLES, 0))

    def finish_interrupted_load(self) -> None:
        """Take over the state that the warehouse holds, and load what a killed run left behind.

        A run killed between two of dlt's steps can leave a package that fails each time. Then the
        warehouse is the truth: what it does not hold is pulled again.
        """
        self.pipeline.sync_destination()
        if self.pipeline.has_pending_data:
            try:
                self._run(None)
            except PipelineStepFailed:
                self.pipeline.drop()
                self.pipeline.sync_destination()
            self.report.notes.append("An earlier load had been interrupted: this one went on.")

    def pull_from_tmdb(self, token: str, since: date | None, until: date | None) -> None:
        """Pull from the API at ``base_url``."""
        now, origin = datetime.now(timezone.utc), self.settings.base_url.rstrip("/")
        with TmdbClient(token, self.settings) as client:
            if since or until:
                self._backfill(client, origin, now, since, until)
            elif self._pull(client, origin, now):
                self._look_up_titles(client, now)
            self.report.notes += client.notes

    def land_sample(self, since: date | None, until: date | None) -> None:
        """Make those pulls of the sample that are not landed yet, from the stand-in."""
        from ingestion.sources.tmdb.standin import StandIn

        origin = self._state().get("origin", SAMPLE)
        if origin != SAMPLE:
            self.report.notes.append(
                f"No TMDB token, and the films here are from {origin}: nothing was pulled."
                " Set TMDB_API_TOKEN."
            )
            return
        self.report.notes.append(
            "No TMDB token: the films are the bundled sample, read from its stand-in server as of"
            f" {', '.join(map(str, SAMPLE_PULLS))}. Set TMDB_API_TOKEN to pull from TMDB."
        )
        token = secrets.token_urlsafe()
        with StandIn.of_sample(token=token) as stand_in:
            # all of the sample, as fast as it comes
            self.settings = settings = copy(self.settings)
            settings.base_url, settings.requests_per_second = stand_in.base_url, 0
            settings.min_vote_count, settings.first_release, settings.include_adult = 0, None, True
            settings.concurrency = min(4, settings.concurrency)
            with TmdbClient(token, settings) as client:
                for day in SAMPLE_PULLS[-1:] if since or until else SAMPLE_PULLS:
                    stand_in.as_of = day
                    now = datetime(day.year, day.month, day.day, tzinfo=timezone.utc)
                    if since or until:
                        self._backfill(client, SAMPLE, now, since, until)
                    elif self._state().get("read_until", "") >= day.isoformat():
                        continue
                    elif not self._pull(client, SAMPLE, now):
                        return
                if not (since or until):
                    self._look_up_titles(client, now)

    def make_tables(self) -> None:
        """Make the tables that dlt has not, for models to read: it waits for a row of their own."""
        of_lists = (
            '"_dlt_root_id" varchar not null, "_dlt_parent_id" varchar not null,'
            ' "_dlt_list_idx" bigint not null'
        )
        tables = {f"movies__{name}": (columns, of_lists) for name, columns in LIST_FIELDS.items()}
        of_loads = '"_dlt_load_id" varchar not null'
        tables["rejects"] = REJECTS_COLUMNS, of_loads
        tables["removed_movies"] = REMOVED_COLUMNS, of_loads
        types = {"bigint": "bigint", "text": "varchar", "timestamp": "timestamp with time zone"}
        with (
            closing(self.target.connect()) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            for name, (columns, keys) in tables.items():
                typed = ", ".join(f'"{n}" {types[c["data_type"]]}' for n, c in columns.items())
                table = f'"{self.pipeline.dataset_name}"."{name}"'
                unique = '"_dlt_id" varchar not null unique'
                cursor.execute(f"create table if not exists {table} ({typed}, {keys}, {unique})")

    # Kinds of pulls

    def _pull(self, client: TmdbClient, origin: str, now: datetime) -> bool:
        """Bring all films up to date, or go on with that; False where max_movies cut it short."""
        state, landed, removed = self._state(), self._landed(), self._removed()
        # a film that TMDB had no more is asked for again as if it had been pulled then
        known = {**removed, **{f: max(at, removed.get(f, NEVER)) for f, at in landed.items()}}
        if state.get("origin", origin) != origin:
            self.report.notes.append(
                f"The films here were from {state['origin']}: all are pulled anew from {origin}."
                " Their metrics so far stay, as history."
            )
            state = {}
        begun = datetime.fromisoformat(state["begun"]) if "begun" in state else now
        first = "read_until" not in state
        if first:
            wanted = [*client.discover(self._first_release(), None), *landed]
        else:
            read_until = date.fromisoformat(state["read_until"])
            changed = client.changed(read_until, max(read_until, now.date()))
            lately = read_until - timedelta(days=self.settings.new_release_days)
            due = now - timedelta(days=self.settings.max_age_days)
            just_now = now - timedelta(days=1)
            wanted = [
                *(
                    film
                    for film in client.discover(lately, None)
                    if film not in landed and removed.get(film, NEVER) < just_now
                ),
                *(film for film, asked in known.items() if film in changed or asked < due),
            ]
        owed = dict.fromkeys(state.get("owed", []))
        wanted = [*dict.fromkeys(film for film in wanted if film not in owed), *owed]
        films = [film for film in wanted if known.get(film, NEVER) < begun]
        finished = {**state, "origin": origin, "read_until": begun.date().isoformat()}
        finished.pop("begun", None)
        meanwhile = {**state, "origin": origin, "begun": begun.isoformat()}
        return self._land(client, films, now, meanwhile, finished, genres=self._new_genres(client))

    def _backfill(
        self,
        client: TmdbClient,
        origin: str,
        now: datetime,
        since: date | None,
        until: date | None,
    ) -> None:
        """Pull the films released in a range."""
        state, landed = {"origin": origin, **self._state()}, self._landed()
        known, lately = {**self._removed(), **landed}, now - timedelta(days=1)
        films = [f for f in client.discover(since, until) if known.get(f, NEVER) < lately]
        self._land(client, films, now, state, state, genres=self._new_genres(client))

    def _look_up_titles(self, client: TmdbClient, now: datetime) -> None:
        """Search for the releases of brands that no landed film is titled like."""
        known = set(self._state().get("looked_up", []))
        landed = {**self._removed(), **self._landed()}
        titles = [title for title in self._unmatched_titles() if title not in known]
        titles, found = titles[: self.settings.max_lookups], 0
        for start in range(0, len(titles), LOOK_UP_AT_ONCE):
            some = titles[start : start + LOOK_UP_AT_ONCE]
            films = [f for f in dict.fromkeys(client.search(some, CANDIDATES)) if f not in landed]
            if len(films) > self.left:
                break  # a title counts as looked up when all its films are landed
            state = self._state()
            finished = {**state, "looked_up": sorted(known.union(some))}
            self._land(client, films, now, state, finished)
            known.update(some)
            landed.update(dict.fromkeys(films, now))
            found += len(films)
        if titles:
            self.report.notes.append(
                f"Searched for {len(titles):,} titles of brand releases: {found:,} films more."
            )

    # How they are landed

    def _land(
        self,
        client: TmdbClient,
        films: list[int],
        now: datetime,
        meanwhile: dict[str, Any],
        finished: dict[str, Any],
        *,
        genres: list[dict[str, Any]] | None = None,
    ) -> bool:
        """Land films chunk by chunk, each with a state: ``finished`` with the last, if it is."""
        allowed = films[: self.left]
        self.left -= len(allowed)
        complete = len(allowed) == len(films)
        owed = frozenset(self._state().get("owed", []))
        size, missing, failed, in_a_row = self.settings.chunk_size, 0, [], 0
        with task(f"TMDB films as of {now:%Y-%m-%d}", len(allowed), "films") as advance:
            for start in range(0, len(allowed), size) or [0]:
                last = complete and owed.issuperset(films[start + size :])
                chunk = Chunk(
                    ids=allowed[start : start + size],
                    pulled_at=now,
                    state=finished if last else meanwhile,
                    genres=None if start else genres,
                    rejects=client.take_rejects(),
                    interrupted=meanwhile,
                    owed=owed,
                    failed_in_a_row=in_a_row,
                    advance=advance,
                )
                if chunk.ids or chunk.genres or chunk.rejects or chunk.state != self._state():
                    self._run(tmdb_source(client, chunk))
                missing, failed = missing + len(chunk.missing), failed + chunk.failed
                in_a_row = chunk.failed_in_a_row
                if chunk.left_out:
                    raise chunk.stopped
                if chunk.stopped:
                    break
        notes = self.report.notes
        if missing:
            notes.append(f"{missing:,} films were left out: TMDB has them no more.")
        if failed:
            named = ", ".join(map(str, failed[:5])) + (", ..." if len(failed) > 5 else "")
            notes.append(
                f"TMDB failed to give {len(failed):,} films ({named}): the next pull asks again."
            )
        if not complete:
            notes.append(
                f"Stopped after {len(allowed):,} of {len(films):,} films; run this again to go on."
            )
        return complete

    def _run(self, source: DltSource | None) -> None:
        """Run the pipeline and count what it lands; None loads pending packages only."""
        try:
            self.pipeline.run(source)
        except PipelineStepFailed as failure:
            cause: BaseException | None = failure
            while cause and not isinstance(cause, UserError):
                cause = cause.__cause__ or cause.__context__
            if cause:
                raise cause from None
            raise
        normalized = self.pipeline.last_trace.last_normalize_info
        counts = normalized.row_counts if normalized else {}
        for table in self.report.rows:
            self.report.rows[table] += counts.get(table, 0)
        self.report.rejected += counts.get("rejects", 0)

    def _state(self) -> dict[str, Any]:
        return dict(self.pipeline.state.get("sources", {}).get("tmdb", {}))

    def _landed(self) -> dict[int, datetime]:
        """The films that the warehouse holds, and when each was last pulled.

        One whose metrics a killed load did not bring counts as pulled never.
        """
        schema = self.pipeline.dataset_name
        films = self._query(
            f"{schema}.movies",
            "select movies.id, metrics.pulled_at"  # noqa: S608
            f" from {schema}.movies as movies left join {schema}.movie_metrics as metrics"
            " on metrics.movie_id = movies.id and metrics.pulled_at = movies.pulled_at",
        )
        return {film: pulled_at or NEVER for film, pulled_at in films}

    def _new_genres(self, client: TmdbClient) -> list[dict[str, Any]] | None:
        """The list of genres, or None where it is landed already."""
        genres, rejects = genre_rows(client.genres())
        client.rejects += rejects
        table = f"{self.pipeline.dataset_name}.genres"
        landed = self._query(table, f"select id, name from {table}")  # noqa: S608
        known = {(genre["id"], genre["name"]) for genre in genres}.issubset(landed)
        return None if landed and known else genres

    def _removed(self) -> dict[int, datetime]:
        """The films that TMDB had no more when it was asked, and when that was last."""
        table = f"{self.pipeline.dataset_name}.removed_movies"
        query = f"select movie_id, max(asked_at) from {table} group by movie_id"  # noqa: S608
        return dict(self._query(table, query))

    def _unmatched_titles(self) -> list[str]:
        movies = f"{self.pipeline.dataset_name}.movies"
        titles: set[str] = set()
        for table, column in BRAND_TITLES.items():
            unmatched = self._query(
                table,
                f"select distinct {column} from {table} where {column} <> '' and lower({column})"  # noqa: S608
                f" not in (select lower(title) from {movies} where title is not null)",
            )
            titles.update(title for (title,) in unmatched)
        return sorted(titles)

    def _query(self, table: str, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query, none where its table does not exist."""
        with closing(self.target.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("select to_regclass(%s) is not null", (table,))
            if not cursor.fetchone()[0]:
                return []
            cursor.execute(sql)
            return cursor.fetchall()

    def _first_release(self) -> date | None:
        day = self.settings.first_release
        try:
            return date.fromisoformat(day) if day else None
        except ValueError:
            raise UserError(
                f"first_release is '{day}', which is no day.\n"
                "Write it as YYYY-MM-DD under [sources.tmdb] in .dlt/config.toml."
            ) from None


def _settings() -> TmdbSettings:
    try:
        return resolve_configuration(TmdbSettings(), sections=("sources", "tmdb"))
    except ConfigurationException as error:
        raise UserError(
            f"A setting under [sources.tmdb] is wrong: {error_line(error)}\n"
            "Mend it in .dlt/config.toml, or the environment variable SOURCES__TMDB__<NAME>."
        ) from error
