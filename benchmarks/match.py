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
from collections.abc import Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
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
SPEED_RELEASES, SPEED_TARGET = 1_000, 20  # seconds
TYPES = {"decimal": "numeric", "timestamp": "timestamptz", "bool": "boolean", "json": "jsonb"}
RELEASE = ["brand_name", "list_position"]  # names a release
HALVINGS = 20
WEIGHTS = yaml.safe_load((PROJECT_DIR / "dbt_project.yml").read_text(encoding="utf-8"))["vars"][
    "brand_match"
]
# What each weight applies to, in the order of features(); the run stops when they do not give the
# scores of int_brand_releases__scored.
SHIPPED = {
    "constant": WEIGHTS["constant"],
    "log10(1 + votes)": WEIGHTS["votes"],
    "company affinity": WEIGHTS["company_affinity"],
    "era fit": WEIGHTS["era_fit"],
    "title cost": WEIGHTS["title_cost"],
    "ln(rivals)": WEIGHTS["rivals"],
    "surplus unknown": WEIGHTS["surplus_unknown"],
    "surplus above": WEIGHTS["surplus_above"],
    "surplus below": WEIGHTS["surplus_below"],
}
TRAPS = {  # what to look for in a release's title
    "numbering or episode": r"(?i)\b(?:part|episode|chapter|vol)\b|\b[IVX]{2,}\b|\s\d+\b",
    "possessive prefix": r"^[\w .-]+(?:'s|s') ",
    "re-release suffix": r"(?i)(?:19|20)\d\d .*re-?(?:release|issue).*",
}
RELEASES = """
    select
        matched.brand_name, matched.list_position, matched.release_title,
        matched.movie_id as found, matched.match_reason, labels.movie_id as labelled,
        coalesce(labels.confidence in ('high', 'medium'), false) as is_labelled,
        films.id is not null as is_held,
        scored.movie_id is not null as is_candidate
    from intermediate.int_brand_releases__matched as matched
    left join labels using (brand_name, list_position)
    left join raw_tmdb.movies as films on films.id = labels.movie_id
    left join intermediate.int_brand_releases__scored as scored
        on scored.brand_release_key = matched.brand_release_key
        and scored.movie_id = labels.movie_id
    where matched.release_source = 'release_list'
    order by matched.brand_name, matched.list_position
"""
CANDIDATES = """
    select
        brand_name, list_position, movie_id, rerelease_year is not null as is_rerelease,
        title_cost::float8, vote_count, company_affinity::float8, era_fit::float8, rival_count,
        score::float8,
        ln(estimated_gross_usd / expected_gross_usd)::float8 as surplus
    from intermediate.int_brand_releases__scored
    where release_source = 'release_list'
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
    dbt_runner.dbt("run", target, "--select", f"+{RESULT}", label="Matching")

    releases = execute(target, RELEASES)
    report_quality(releases[releases["is_labelled"]].copy(), films)
    report_weights(releases, execute(target, CANDIDATES))
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
    loads = "load_id text, status bigint, inserted_at timestamptz"
    execute(target, f"create table raw_tmdb._dlt_loads ({loads})")
    nested = "_dlt_root_id text, _dlt_parent_id text, _dlt_list_idx bigint, _dlt_id text unique"
    for table, columns, keys in (
        ("movies", MOVIES_COLUMNS, "_dlt_load_id text, _dlt_id text unique"),
        ("movies__production_companies", LIST_FIELDS["production_companies"], nested),
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
    wrong = absent["found"].notna().sum()
    over_all = (held["found"] == held["labelled"]).sum() / labelled["found"].notna().sum()
    click.echo(
        f"\n{len(absent)} more releases whose film the catalogue has not: {wrong} matched, wrongly."
        f"\nPrecision over all {len(labelled)}: {over_all:.3f}"
    )
    show("By brand", {brand: measure(group) for brand, group in held.groupby("brand_name")})

    titles = held["release_title"]
    traps = {name: titles.str.contains(regex) for name, regex in TRAPS.items()}
    first = plain(titles.str.replace(TRAPS["re-release suffix"], "", regex=True))
    traps["several films of the title"] = held["plain"].map(films["plain"].value_counts()) > 1
    traps["title twice in a brand"] = held.assign(first=first).duplicated(
        ["brand_name", "first"], keep=False
    )
    traps["title of 4 letters or fewer"] = first.str.len() <= 4
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


# Weights -----------------------------------------------------------------------------------------


def features(candidates: pd.DataFrame) -> np.ndarray:
    """What the weights of ``SHIPPED`` apply to: a row for each candidate."""
    surplus = candidates["surplus"]
    columns = [
        np.ones(len(candidates)),
        np.log10(1 + candidates["vote_count"]),
        candidates["company_affinity"],
        candidates["era_fit"],
        candidates["title_cost"],
        np.log(candidates["rival_count"]),
        surplus.isna(),
        surplus.fillna(0).clip(0, 4),
        -surplus.fillna(0).clip(-5, 0),
    ]
    return np.column_stack(columns).astype(float)


def fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression by Newton's method; all but the first drawn to zero."""
    weights, penalty = np.zeros(x.shape[1]), np.diag([0.01] + [1.0] * (x.shape[1] - 1))
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        curvature = (x * (chance * (1 - chance))[:, None]).T @ x + penalty
        weights += np.linalg.solve(curvature, x.T @ (y - chance) - penalty @ weights)
    return weights


def decide(candidates: pd.DataFrame, least: dict[str, float]) -> pd.DataFrame:
    """The film of each release by ``score``, as int_brand_releases__matched decides."""
    ranked = candidates.sort_values(["score", "movie_id"], ascending=[False, True])
    ranked["is_favourite"] = ranked.groupby(RELEASE).cumcount() == 0
    suitors = ranked.sort_values(["score", "list_position"], ascending=[False, True])
    suitors = suitors.groupby(["brand_name", "movie_id", "is_rerelease"]).head(1)
    takers = suitors[suitors["is_favourite"] & ~suitors["is_rerelease"]]
    taken = takers[["brand_name", "movie_id", "list_position"]]
    left = ranked.merge(taken, on=["brand_name", "movie_id"], how="left", suffixes=("", "_taker"))
    is_free = left["list_position_taker"].isna() | left["is_rerelease"]
    left = left[is_free | (left["list_position_taker"] == left["list_position"])].copy()
    left["lead"] = left["score"] - left.groupby(RELEASE)["score"].shift(-1)
    best = left.groupby(RELEASE).head(1)
    best = best[(best["score"] >= least["score"]) & ~(best["lead"] < least["lead"])]
    return best[[*RELEASE, "movie_id"]].rename(columns={"movie_id": "decided"})


def report_weights(releases: pd.DataFrame, candidates: pd.DataFrame) -> None:
    """Fit the weights on half of the brands and print how they do on the other half."""
    x, shipped = features(candidates), np.array(list(SHIPPED.values()))
    if np.abs(x @ shipped - candidates["score"]).max() > 0.01:
        raise UserError(
            "features() in benchmarks/match.py are not those of int_brand_releases__scored.\n"
            "Bring the two in line."
        )
    least = {bound: WEIGHTS[f"least_{bound}"] for bound in ("score", "lead")}
    answers = candidates[["brand_name", "list_position", "movie_id"]].merge(
        releases[[*RELEASE, "labelled", "is_labelled"]], on=RELEASE, how="left"
    )
    is_right = (answers["movie_id"] == answers["labelled"]).to_numpy(float)
    names = sorted(releases["brand_name"].unique())
    halves = {"A": names[::2], "B": names[1::2]}

    def fit_on(own: Sequence[str]) -> np.ndarray:
        used = (answers["brand_name"].isin(own) & answers["is_labelled"]).to_numpy()
        return fit(x[used], is_right[used])

    def judge(given: np.ndarray, own: Sequence[str]) -> dict[str, Any]:
        decided = decide(candidates.assign(score=(x @ given).round(4)), least)
        part = releases.merge(decided, on=RELEASE, how="left")
        part = part[part["brand_name"].isin(own) & part["is_labelled"]]
        absent = part.loc[~part["is_held"], "decided"].notna()
        return {
            **measure(part[part["is_held"]], "decided"),
            "film absent": len(absent),
            "yet matched": absent.sum(),
        }

    again = releases.merge(decide(candidates, least), on=RELEASE, how="left")
    if not again["found"].equals(again["decided"]):
        raise UserError(f"decide() in benchmarks/match.py differs from {RESULT}.\nMend it.")
    weights = {"shipped": shipped, **{half: fit_on(own) for half, own in halves.items()}}
    weights["all"] = fit_on(names)
    rows = {
        f"{fitted} on {half}" + ", held out" * ({fitted, half} == {"A", "B"}): judge(given, own)
        for fitted, given in weights.items()
        for half, own in halves.items()
    }
    show("Brands in halves A and B: weights as shipped, and fitted on a half or on all", rows)
    table = {name: dict(zip(weights, row, strict=True)) for name, *row in zip(
        SHIPPED, *(w.round(2) for w in weights.values()), strict=True)}  # fmt: skip
    show("Weights", table)

    shuffle, parts = np.random.default_rng(0), []
    for _ in range(HALVINGS):
        mixed = shuffle.permutation(names)
        one, other = mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]
        parts += [judge(fit_on(one), other), judge(fit_on(other), one)]
    total = pd.DataFrame(parts)[["releases", "right", "wrong", "yet matched"]].sum()
    click.echo(
        f"\n{HALVINGS} random halvings of the brands, each half judged by weights fitted on the"
        f" other:\nprecision {total['right'] / (total['right'] + total['wrong']):.4f},"
        f" recall {total['right'] / total['releases']:.4f},"
        f" {total['yet matched'] / HALVINGS:.1f} of the absent films matched, wrongly"
    )


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
    dbt_runner.dbt("run", target, "--select", f"+{RESULT}", label="Matching")
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
