"""What a pull lands, as dlt's resources: one answer of TMDB feeds all tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import dlt

from ingestion.sources.tmdb.client import TmdbClient, TmdbUnavailable
from ingestion.sources.tmdb.rows import Reject, film_row
from ingestion.sources.tmdb.settings import (
    GENRES_COLUMNS,
    LIST_FIELDS,
    METRICS_COLUMNS,
    MOVIES_COLUMNS,
    REJECTS_COLUMNS,
    REMOVED_COLUMNS,
)

MOST_FAILURES = 10  # films in a row that TMDB may fail to give before a pull gives up
# Columns are declared and all other fields go to extra_fields: what is new in a row is a bug
CONTRACT: Any = {"tables": "evolve", "columns": "freeze", "data_type": "freeze"}


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
