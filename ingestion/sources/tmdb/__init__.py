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
import time
from datetime import date

import dlt
from dlt.common.configuration import resolve_configuration
from dlt.common.configuration.exceptions import ConfigurationException

from ingestion.errors import UserError, error_line
from ingestion.pipeline import LoadReport, make_pipeline, one_at_a_time
from ingestion.sources.tmdb.pull import Ingestion
from ingestion.sources.tmdb.settings import (
    TmdbSettings,
)
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

ENV_FILE = PROJECT_DIR / ".env"


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
        job = Ingestion(target, pipeline or make_pipeline("tmdb", target), settings, max_movies)
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


def _settings() -> TmdbSettings:
    try:
        return resolve_configuration(TmdbSettings(), sections=("sources", "tmdb"))
    except ConfigurationException as error:
        raise UserError(
            f"A setting under [sources.tmdb] is wrong: {error_line(error)}\n"
            "Correct it in .dlt/config.toml, or the environment variable SOURCES__TMDB__<NAME>."
        ) from error
