"""How well and how fast brand releases are matched with films: make bench-match.

Runs in `marquee scratch`. The rules alone are scored: corrections by hand are taken out.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import match_weights
import numpy as np
import pandas as pd
import yaml

from ingestion import dbt_runner
from ingestion.errors import UserError
from ingestion.sources import brands
from ingestion.sources.tmdb.settings import LIST_FIELDS, MOVIES_COLUMNS, REMOVED_COLUMNS
from ingestion.warehouse.access import load_target
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

SAMPLE = PROJECT_DIR / "ingestion" / "sample"
LABELS = Path(__file__).with_name("match_labels.csv")
RESULT = "int_brand_releases__matched"
DECIDING = [
    f"int_brand_releases__{part}" for part in ("scored", "originals", "rereleases", "matched")
]
SPEED_RELEASES, SPEED_TARGET = 1_000, 20  # seconds
TYPES = {"decimal": "numeric", "timestamp": "timestamptz", "bool": "boolean", "json": "jsonb"}
FOLDS = 4  # parts that labelled films are taken out in
RELEASE = ["brand_name", "list_position"]  # names a release
WEIGHTS = yaml.safe_load((PROJECT_DIR / "dbt_project.yml").read_text(encoding="utf-8"))["vars"][
    "brand_match"
]
TRAPS = {  # what to look for in a release's title
    "numbering or episode": r"(?i)\b(?:part|episode|chapter|vol)\b|\b[IVX]{2,}\b|\s\d+\b",
    "possessive prefix": r"^[\w .-]+(?:'s|s') ",
    "re-release suffix": r"(?i)(?:19|20)\d\d .*re-?(?:release|issue).*",
}
RELEASES = """
    select
        matched.brand_name, matched.list_position, matched.release_title,
        matched.movie_id as found, matched.match_reason, labels.movie_id as labelled,
        releases.bare_title_key, releases.is_noted and (
            releases.noted_year is not null
            or coalesce(films.title_key, '') != releases.release_title_key
        ) as is_rerelease,
        coalesce(labels.confidence in ('high', 'medium'), false) as is_labelled,
        films.movie_id is not null as is_held,
        scored.movie_id is not null as is_candidate
    from intermediate.int_brand_releases__matched as matched
    left join labels
        on labels.brand_name = matched.brand_name
        and labels.list_position = matched.list_position
    inner join intermediate.int_brand_releases__unioned as releases using (brand_release_key)
    left join staging.stg_tmdb__movies as films on films.movie_id = labels.movie_id
    left join intermediate.int_brand_releases__scored as scored
        on scored.brand_release_key = matched.brand_release_key
        and scored.movie_id = labels.movie_id
    where matched.release_source = 'release_list'
    order by matched.brand_name, matched.list_position
"""
# A made-up word behind each title: new keys, as long and as mixed as real ones.
MORE_FILMS = """
    insert into raw_tmdb.movies (
        id, title, original_title, release_date, revenue, vote_count, pulled_at, _dlt_id
    )
    select
        id + 10000000::bigint * n, title || word, original_title || word, release_date, revenue,
        vote_count, pulled_at, _dlt_id || 'x' || n
    from raw_tmdb.movies
    cross join (
        select n, ' ' || translate(left(md5(n::text), 6), '0123456789', 'ghijklmnop') as word
        from generate_series(1, %s) as n
    ) as words
    order by n
    limit %s
"""
MORE_COMPANIES = """
    insert into raw_tmdb.movies__production_companies (
        id, _dlt_root_id, _dlt_parent_id, _dlt_list_idx, _dlt_id
    )
    select
        companies.id, films._dlt_id, films._dlt_id, _dlt_list_idx,
        films._dlt_id || 'c' || _dlt_list_idx
    from raw_tmdb.movies as films
    inner join raw_tmdb.movies__production_companies as companies
        on companies._dlt_parent_id = split_part(films._dlt_id, 'x', 1)
    where films._dlt_id like '%%x%%'
"""


@click.command()
@click.option("--catalogue", type=Path, default=SAMPLE / "tmdb" / "movies.jsonl.gz")
@click.option("--labels", type=Path, default=LABELS)
@click.option("--speed", default=1_000_000, help="Films of the speed part; 0 leaves it out.")
def main(catalogue: Path, labels: Path, speed: int) -> None:
    """Score the matching of releases with films against labels, then time it."""
    for path, option in ((catalogue, "--catalogue"), (labels, "--labels")):
        if not path.is_file():
            raise UserError(f"There is no {path}.\nGive its place with {option}.")
    target = load_target()
    dbt_runner.install_packages()
    films, labelled = read_films(catalogue), read_labels(labels)
    land_films(target, films)
    answers = labelled[["brand", "position", "tmdb_id", "confidence"]]
    answers = answers.set_axis([*RELEASE, "movie_id", "confidence"], axis=1)
    execute(
        target,
        "create table labels"
        " (brand_name text, list_position bigint, movie_id bigint, confidence text)",
    )
    copy(target, "labels", answers)
    brands.ingest_brands(None, target)
    land_releases(target, labelled[["brand", "position", "release"]])
    dbt_runner.dbt(
        "seed", target, "--select", "brand_match_corrections", "title_aliases", label="Seeding"
    )
    execute(target, "truncate seeds.brand_match_corrections")
    match(target)

    releases = read_releases(target)
    report_quality(releases.copy(), films)
    folds = list(without_films(target, releases))
    report_taken_out(folds)
    report_held_out(target, releases, folds)
    if speed:
        report_speed(target, labelled, len(films), speed)


# Landing -----------------------------------------------------------------------------------------


def read_films(path: Path) -> pd.DataFrame:
    """Films of a CSV file, or of gzipped JSON lines as TMDB's /movie/{id} gives them."""
    if path.suffixes != [".jsonl", ".gz"]:
        films = pd.read_csv(path, keep_default_na=False, dtype=str)
        return films.astype({"id": int, "vote_count": int})
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        films = [json.loads(line) for line in lines]
    columns = "id title original_title original_language release_date runtime revenue popularity"
    return pd.DataFrame(
        {
            **{column: film[column] for column in [*columns.split(), "vote_average", "vote_count"]},
            "collection_id": (film["belongs_to_collection"] or {}).get("id", ""),
            "company_ids": "|".join(str(one["id"]) for one in film["production_companies"]),
        }
        for film in films
    )


def read_labels(path: Path) -> pd.DataFrame:
    """Brand, position, tmdb_id and confidence; titles are the sample's where the file has none."""
    labels = pd.read_csv(path, keep_default_na=False, dtype=str)
    if "release" in labels:
        return labels
    listed = SAMPLE / "brands" / "brand_releases.csv"
    titles = pd.read_csv(listed, keep_default_na=False, dtype=str)
    return labels.merge(titles, on=["brand", "position"], validate="one_to_one")


def execute(target: Target, statement: str, parameters: Sequence[Any] | None = None) -> Any:
    """Run one statement; what it returns is a data frame."""
    with closing(target.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        if not cursor.description:
            return None
        return pd.DataFrame(cursor.fetchall(), columns=[c.name for c in cursor.description])


def copy(target: Target, table: str, rows: pd.DataFrame) -> None:
    """Append rows to the columns of a table that have their names; blank is null."""
    text = io.StringIO(rows.to_csv(index=False, header=False))
    with closing(target.connect()) as connection, connection, connection.cursor() as cursor:
        columns = ", ".join(rows.columns)
        cursor.copy_expert(f"copy {table} ({columns}) from stdin with (format csv)", text)
        cursor.execute(f"analyze {table}")


def land_films(target: Target, films: pd.DataFrame) -> None:
    """Make the raw tables of films that matching reads, as dlt would, and fill them."""
    execute(target, "create schema raw_tmdb")
    loads = "load_id text, schema_name text, status bigint, inserted_at timestamptz"
    execute(target, f"create table raw_tmdb._dlt_loads ({loads}, schema_version_hash text)")
    nested = "_dlt_root_id text, _dlt_parent_id text, _dlt_list_idx bigint, _dlt_id text unique"
    for table, columns, keys in (
        ("movies", MOVIES_COLUMNS, "_dlt_load_id text, _dlt_id text unique"),
        ("movies__production_companies", LIST_FIELDS["production_companies"], nested),
        ("movies__alternative_titles", LIST_FIELDS["alternative_titles"], nested),
        ("movies__crew", LIST_FIELDS["crew"], nested),
        ("removed_movies", REMOVED_COLUMNS, "_dlt_load_id text, _dlt_id text unique"),
    ):
        typed = (f"{n} {TYPES.get(c['data_type'], c['data_type'])}" for n, c in columns.items())
        execute(target, f"create table raw_tmdb.{table} ({', '.join(typed)}, {keys})")
    rows = films.rename(columns={"collection_id": "belongs_to_collection__id"}).assign(
        original_title=films["original_title"].where(films["original_title"] != "", films["title"]),
        pulled_at="2024-02-08",
        _dlt_id="d" + films["id"].astype(str),
    )
    copy(target, "raw_tmdb.movies", rows.drop(columns="company_ids"))
    listed = rows["company_ids"].str.split("|").explode()
    listed = listed[listed != ""].rename("id").to_frame().join(rows["_dlt_id"].rename("parent"))
    number = listed.groupby("parent").cumcount()
    companies = pd.DataFrame(
        {
            "id": listed["id"],
            "_dlt_root_id": listed["parent"],
            "_dlt_parent_id": listed["parent"],
            "_dlt_list_idx": number,
            "_dlt_id": listed["parent"] + "c" + number.astype(str),
        }
    )
    copy(target, "raw_tmdb.movies__production_companies", companies)


def land_releases(target: Target, rows: pd.DataFrame) -> None:
    """Land brand, position and title as a release list: through the ingestion, without answers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "brand_releases.csv"
        rows.to_csv(path, index=False)
        report = brands.ingest_releases(path, target)
    if report.rejected:
        raise UserError("\n".join(report.notes))


def match(target: Target, models: Sequence[str] = (f"+{RESULT}",), **weights: float) -> None:
    """Build the models, with other weights than the project's where some are given."""
    given = json.dumps({"brand_match": WEIGHTS | weights})
    dbt_runner.dbt("run", target, "--select", *models, "--vars", given, label="Matching")


def read_releases(target: Target) -> pd.DataFrame:
    """The labelled releases with the film that each was found to be."""
    releases = execute(target, RELEASES)
    releases = releases[releases["is_labelled"]].reset_index(drop=True)
    first = releases[~releases["is_rerelease"]]
    is_twin = first.duplicated(["brand_name", "bare_title_key"], keep=False)
    return releases.assign(is_twin=is_twin.reindex(releases.index, fill_value=False))


# Quality -----------------------------------------------------------------------------------------


def plain(titles: pd.Series) -> pd.Series:
    """Titles as a first try compares them: lower case, without spaces, colons and hyphens."""
    return titles.str.lower().str.replace("[ :-]", "", regex=True)


def figures(found: pd.Series, labelled: pd.Series, releases: int) -> dict[str, Any]:
    """Precision (right of those found) and recall (right of so many labelled releases)."""
    right, matched = (found == labelled).sum(), found.notna().sum()
    return {
        "releases": releases,
        "right": right,
        "wrong": matched - right,
        "precision": f"{right / matched:.3f}" if matched else "-",
        "recall": f"{right / releases:.3f}" if releases else "-",
        "F1": f"{2 * right / (matched + releases):.3f}" if matched + releases else "-",
    }


def measure(releases: pd.DataFrame, found: str = "found") -> dict[str, Any]:
    """Figures of releases whose labelled film the catalogue holds."""
    return figures(releases[found], releases["labelled"], len(releases))


def by_kind(releases: pd.DataFrame) -> dict[str, Any]:
    """Figures of first releases, re-releases, titles that a brand has twice, absent films."""
    held, absent = releases[releases["is_held"]], releases[~releases["is_held"]]
    return {
        "originals": measure(held[~held["is_rerelease"]]),
        "re-releases": measure(held[held["is_rerelease"]]),
        "same-title twins": measure(held[held["is_twin"]]),
        "film absent": {
            "releases": len(absent),
            "right": absent["found"].isna().sum(),
            "wrong": absent["found"].notna().sum(),
            "precision": "-",
            "recall": "-",
            "F1": "-",
        },
    }


def show(title: str, rows: dict[str, Any]) -> None:
    """Print a table, given by its rows, below a heading."""
    click.echo(f"\n{title}\n\n{pd.DataFrame.from_dict(rows, orient='index').to_string()}")


def report_quality(labelled: pd.DataFrame, films: pd.DataFrame) -> None:
    """Print how this project and two simple ways do: in all, by brand, by trap; then the misses."""
    films = films.assign(plain=plain(films["title"]))
    labelled["plain"] = plain(labelled["release_title"])
    held, absent = labelled[labelled["is_held"]], labelled[~labelled["is_held"]]
    same_title = held.merge(films[["id", "plain", "vote_count"]], on="plain")
    most_votes = same_title.sort_values("vote_count").groupby(RELEASE).tail(1)
    show(
        f"{len(held)} releases whose film is among the {len(films):,} of the catalogue",
        {
            "equal titles": figures(same_title["id"], same_title["labelled"], len(held)),
            "and most votes": figures(most_votes["id"], most_votes["labelled"], len(held)),
            "this project": measure(held),
        },
    )
    show("By kind", by_kind(labelled))
    wrong = absent["found"].notna().sum()
    over_all = (held["found"] == held["labelled"]).sum() / labelled["found"].notna().sum()
    click.echo(
        f"\n{len(absent)} more releases whose film the catalogue has not: {wrong} matched, wrongly."
        f"\nPrecision over all {len(labelled)}: {over_all:.3f}"
    )
    show("By brand", {brand: measure(group) for brand, group in held.groupby("brand_name")})

    titles = held["release_title"]
    traps = {name: titles.str.contains(regex) for name, regex in TRAPS.items()}
    traps["several films of the title"] = held["plain"].map(films["plain"].value_counts()) > 1
    traps["title twice in a brand"] = held.duplicated(["brand_name", "bare_title_key"], keep=False)
    traps["title of 4 letters or fewer"] = held["bare_title_key"].str.len() <= 4
    traps["none of these"] = ~pd.concat(traps.values(), axis=1).any(axis=1)
    by_trap = {name: measure(held[is_in]) for name, is_in in traps.items()}
    show("By trap (a release may be in several)", by_trap)

    should = labelled["labelled"].where(labelled["is_held"])
    missed = labelled[labelled["found"].fillna(0) != should.fillna(0)].copy()
    name = (films["title"] + " (" + films["release_date"].str[:4] + ")").set_axis(films["id"])
    missed["should be"] = missed["labelled"].map(name).fillna("not in the catalogue")
    missed["found"] = missed["found"].map(name).fillna("none")
    missed["reason"] = missed["match_reason"] + np.where(
        missed["is_held"] & ~missed["is_candidate"], ", no candidate", ""
    )
    columns = [*RELEASE, "release_title", "should be", "found", "reason"]
    click.echo(f"\nMissed or wrong: {len(missed)}\n\n{missed[columns].to_string(index=False)}")


# Brands and films held out -----------------------------------------------------------------------


def without_films(
    target: Target, releases: pd.DataFrame
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Releases, and candidates with evidence: the catalogue as it is, then without some films.

    Each labelled film is taken out once, so that its releases are of an absent film.
    """
    yield releases, match_weights.read_candidates(target)
    held = np.sort(releases.loc[releases["is_held"], "labelled"].unique()).astype(int)
    held = np.random.default_rng(0).permutation(held)
    execute(target, "create table kept as select * from staging.stg_tmdb__movies")
    for n in range(FOLDS):
        films, some = "staging.stg_tmdb__movies", held[n::FOLDS].tolist()
        execute(target, f"delete from {films} where movie_id = any(%s)", (some,))  # noqa: S608
        match(target, ("int_movies__title_keys", "int_brand_releases__*"))
        part = read_releases(target)
        yield (
            part.assign(is_taken_out=part["labelled"].isin(some)),
            match_weights.read_candidates(target),
        )
        execute(target, f"truncate {films}")
        execute(target, f"insert into {films} select * from kept")  # noqa: S608
    match(target, ("int_movies__title_keys", "int_brand_releases__*"))


def report_taken_out(folds: list[tuple[pd.DataFrame, pd.DataFrame]]) -> None:
    """Print how many releases take another film once theirs is not in the catalogue."""
    parts = pd.concat([part[part["is_taken_out"]] for part, _ in folds[1:]])
    matched = parts["found"].notna()
    rows = {"originals": ~parts["is_rerelease"], "re-releases": parts["is_rerelease"]}
    show(
        f"Each film taken out of the catalogue once, in {FOLDS} parts",
        {
            kind: {
                "releases": which.sum(),
                "matched, wrongly": (matched & which).sum(),
                "share": f"{(matched & which).sum() / max(which.sum(), 1):.3f}",
            }
            for kind, which in rows.items()
        },
    )


def report_held_out(
    target: Target, releases: pd.DataFrame, folds: list[tuple[pd.DataFrame, pd.DataFrame]]
) -> None:
    """Fit the weights on half of the brands and judge the other half, by the models themselves."""
    names = sorted(releases["brand_name"].unique())
    halves = {"A": names[::2], "B": names[1::2]}
    weights, judged = {"shipped": WEIGHTS}, []
    for own, other in (("A", "B"), ("B", "A")):
        weights[own] = match_weights.fitted(folds, halves[own], WEIGHTS)
        match(target, DECIDING, **weights[own])
        judged.append(read_releases(target))
        judged[-1] = judged[-1][judged[-1]["brand_name"].isin(halves[other])]
        show(f"Brands of half {other}, by weights fitted on half {own}", by_kind(judged[-1]))
    show("Both halves, each held out", by_kind(pd.concat(judged)))
    show("Weights", {
        name: {own: round(given[name], 2) for own, given in weights.items()}
        for name in match_weights.FEATURES
    })  # fmt: skip
    match(target, DECIDING)


# Speed -------------------------------------------------------------------------------------------


def server_seconds(target: Target) -> float:
    """Processor time of the server and of those of its processes that ended; NaN if not Linux."""
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        backend = cursor.fetchone()[0]
        if not Path(f"/proc/{backend}/stat").is_file():
            return float("nan")
        server = process_stat(backend)[1]
    return sum(map(int, process_stat(server)[11:15])) / os.sysconf("SC_CLK_TCK")


def process_stat(process: int | str) -> list[str]:
    """What Linux tells of a process: state, parent, ... and from the eleventh on its times."""
    return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()


def report_speed(target: Target, labelled: pd.DataFrame, held: int, films: int) -> None:
    """Time the models on a catalogue blown up to so many films, and on 1,000 releases."""
    execute(target, MORE_FILMS, (-(-films // held) - 1, max(films - held, 0)))
    execute(target, MORE_COMPANIES, ())
    for table in ("movies", "movies__production_companies"):
        execute(target, f"analyze raw_tmdb.{table}")
    rows = [
        (row.brand + " again" * (n // len(labelled)), row.position, row.release)
        for n, row in enumerate(islice(cycle(labelled.itertuples()), SPEED_RELEASES))
    ]
    land_releases(target, pd.DataFrame(rows, columns=["brand", "position", "release"]))
    started, busy = time.monotonic(), server_seconds(target)
    match(target)
    built = time.monotonic()
    execute(target, f"create temp table result as select * from intermediate.{RESULT}")  # noqa: S608
    ended = time.monotonic()
    results = json.loads(
        (dbt_runner.target_path() / "run_results.json").read_text(encoding="utf-8")
    )
    seconds = {r["unique_id"].split(".")[-1]: r["execution_time"] for r in results["results"]}
    slowest = sorted(seconds, key=seconds.get, reverse=True)[:4]
    show(
        f"Slowest models, {len(rows):,} releases against {max(films, held):,} films",
        {model: {"seconds": f"{seconds[model]:.1f}"} for model in slowest},
    )
    busy = server_seconds(target) - busy
    click.echo(
        f"\ndbt run {built - started:.1f} s, of which models {sum(seconds.values()):.1f} s; reading"
        f" {RESULT} {ended - built:.1f} s.\nProcessor time of PostgreSQL: {busy:.1f} s.\n"
        f"In all {ended - started:.1f} s; target: under {SPEED_TARGET} s for 1,000 releases against"
        " 1,000,000 films, from raw titles on."
    )


if __name__ == "__main__":
    main()
