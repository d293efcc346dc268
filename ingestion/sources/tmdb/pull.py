"""One pull: which films are asked for, in which chunks they land, what is remembered."""

from __future__ import annotations

import secrets
import sys
from contextlib import closing
from copy import copy
from datetime import date, datetime, timedelta, timezone
from typing import Any

import dlt
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from ingestion.errors import UserError
from ingestion.pipeline import LoadReport
from ingestion.progress import task
from ingestion.sources.tmdb.client import TmdbClient
from ingestion.sources.tmdb.resources import Chunk, tmdb_source
from ingestion.sources.tmdb.rows import genre_rows
from ingestion.sources.tmdb.settings import (
    LIST_FIELDS,
    REJECTS_COLUMNS,
    REMOVED_COLUMNS,
    SAMPLE_PULLS,
    TmdbSettings,
)
from ingestion.warehouse.target import Target

SAMPLE = "sample"  # the origin of films that came from the stand-in
NEVER = datetime.min.replace(tzinfo=timezone.utc)
ROOT_TABLES = ("movies", "movie_metrics", "genres")
BRAND_TITLES = {"raw_brands.brand_releases": "release", "raw_brands.brands": "top_release"}
LOOK_UP_AT_ONCE, CANDIDATES = 100, 3  # titles searched for in one go, films taken of each search


class Ingestion:
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
        warehouse is the truth: what it does not hold is pulled again. The same holds where the
        tables were dropped: what dlt keeps on this disk would say that films are there.
        """
        self.pipeline.sync_destination()
        states = f"{self.pipeline.dataset_name}._dlt_pipeline_state"
        if not self.pipeline.first_run and not self._query(states, f"select from {states} limit 1"):
            self.pipeline.drop()
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
        size, missing, in_a_row = self.settings.chunk_size, 0, 0
        failed: list[int] = []
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
                if chunk.stopped and chunk.left_out:
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
        trace = self.pipeline.last_trace
        normalized = trace.last_normalize_info if trace else None
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
