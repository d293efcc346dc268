"""The dbt project holds together, as far as dbt-bouncer has no check for it (dbt-bouncer.yml)."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from ingestion.warehouse.paths import PROJECT_DIR

CODE = ("models", "macros", "tests", "seeds", "snapshots")


def _texts(*folders: str) -> list[str]:
    files = [
        p for f in folders for p in (PROJECT_DIR / f).rglob("*") if p.suffix in (".sql", ".yml")
    ]
    assert files
    return [path.read_text(encoding="utf-8") for path in files]


def test_the_stand_in_offers_exactly_the_dbt_utils_that_are_used():
    used = {name for text in _texts(*CODE) for name in re.findall(r"\bdbt_utils\.(\w+)", text)}
    offered = {
        name
        for text in _texts("packages/dbt_utils/macros")
        for name in re.findall(r"\{%-?\s*(?:macro|test)\s+(\w+)", text)
        if not name.startswith(("default__", "_"))
    }
    assert used == offered


@pytest.fixture(scope="module")
def manifest(built) -> dict:
    return json.loads((built.target_path / "manifest.json").read_text(encoding="utf-8"))


def _ours(manifest: dict) -> list[dict]:
    nodes = [*manifest["nodes"].values(), *manifest["sources"].values()]
    kinds = ("model", "seed", "snapshot", "source")
    return [n for n in nodes if n["resource_type"] in kinds and n["package_name"] == "marquee"]


def test_every_column_of_seeds_snapshots_and_sources_is_described(manifest: dict):
    bare = [
        f"{node['name']}.{column['name']}"
        for node in _ours(manifest)
        if node["resource_type"] != "model"
        for column in node["columns"].values()
        if not column["description"].strip()
    ]
    assert bare == []


def test_descriptions_and_tables_name_the_same_columns(manifest: dict, built):
    """A column that is missing from the YAML, or only there, is a description that has drifted."""
    catalog = json.loads((built.target_path / "catalog.json").read_text(encoding="utf-8"))["nodes"]
    drifted = {}
    for node in _ours(manifest):
        if node["resource_type"] in ("model", "seed"):
            table = set(catalog[node["unique_id"]]["columns"])
            if table != set(node["columns"]):
                drifted[node["name"]] = sorted(table ^ set(node["columns"]))
    assert drifted == {}


@pytest.fixture(scope="module")
def marts(manifest: dict) -> list[dict]:
    found = [n for n in _ours(manifest) if n["path"].startswith("marts/")]
    assert len(found) >= 25
    return found


def _tests_of(manifest: dict, node: dict) -> list[tuple[str, dict]]:
    """The generic tests attached to a node, as (macro's name, its arguments)."""
    return [
        (test["test_metadata"]["name"], test["test_metadata"]["kwargs"])
        for test in manifest["nodes"].values()
        if test["resource_type"] == "test" and test.get("attached_node") == node["unique_id"]
    ]


def test_no_key_of_a_mart_can_be_null(manifest: dict, marts: list[dict]):
    """One column that is unique and not null, or a combination whose columns cannot be null."""
    missing = []
    for node in marts:
        tests = _tests_of(manifest, node)
        for name, arguments in tests:
            column = arguments.get("column_name")
            if name == "unique" and ("not_null", column) in {
                (other, given.get("column_name")) for other, given in tests
            }:
                break
            if name == "unique_combination_of_columns":
                columns = [node["columns"][c] for c in arguments["combination_of_columns"]]
                if all("not_null" in {k["type"] for k in c["constraints"]} for c in columns):
                    break
        else:
            missing.append(node["name"])
    assert missing == []


def test_every_model_has_an_owner(manifest: dict):
    owned = {group["name"] for group in manifest["groups"].values() if group["owner"]["name"]}
    models = [n for n in _ours(manifest) if n["resource_type"] == "model"]
    assert [n["name"] for n in models if n["config"]["group"] not in owned] == []


def test_every_mart_stands_in_the_marts_readme(marts: list[dict]):
    readme = (PROJECT_DIR / "models/marts/README.md").read_text(encoding="utf-8")
    rows = "\n".join(line.split("|")[1] for line in readme.splitlines() if line.startswith("| `"))
    assert [n["name"] for n in marts if f"`{n['name']}`" not in rows] == []


@pytest.mark.parametrize(
    ("page", "begins", "ends"),
    [("models/marts/README.md", "## Bus matrix\n\n", "\n\n"), ("README.md", "```\n    ", "```")],
    ids=["bus matrix", "star"],
)
def test_the_overview_draws_what_the_readme_draws(page: str, begins: str, ends: str):
    overview, readme = (
        (PROJECT_DIR / path).read_text(encoding="utf-8").partition(begins)[2].partition(ends)[0]
        for path in ("docs/overview.md", page)
    )
    assert overview == readme
    assert "fct_transactions" in readme


def test_a_film_that_changes_gets_a_version_that_follows_the_one_before(built):
    film = "id = (select min(id) from raw_tmdb.movies)"
    title, movie_id = built.rows(f"select title, id from raw_tmdb.movies where {film}")[0]
    versions = ("snp_tmdb__movies", "dim_movie_history", "dim_movie")
    selected = ("build", "--select", "stg_tmdb__movies", *versions)
    try:
        built.execute(
            "update raw_tmdb.movies set title = 'Another title',"
            f" pulled_at = pulled_at + interval '3 days' where {film}"
        )
        built.dbt(*selected)
        old, new = built.rows(
            "select title, version_number, is_current, valid_to, valid_from"
            f" from marts.dim_movie_history where movie_id = {movie_id} order by valid_from"
        )
        assert (*old[:3], *new[:4]) == (title, 1, False, "Another title", 2, True, None)
        assert old[3] == new[4], "half-open: one ends when the next begins"
        assert built.rows(
            "select movies.title, versions.title from marts.dim_movie as movies"
            " inner join marts.dim_movie_history as versions using (movie_history_key)"
            f" where movies.movie_id = {movie_id}"
        ) == [("Another title", "Another title")]

        built.execute(
            "update snapshots.snp_tmdb__movies set dbt_valid_to = dbt_valid_to - interval '1 day'"
            f" where movie_id = {movie_id} and dbt_valid_to is not null"
        )
        gap = built.dbt("build", "--select", "dim_movie_history", check=False)
        assert "FAIL 1 movie_versions_neither_overlap_nor_leave_gaps" in gap.stdout
    finally:
        built.execute(
            f"update raw_tmdb.movies set title = '{title}',"
            f" pulled_at = pulled_at - interval '3 days' where {film}"
        )
        built.execute(
            f"delete from snapshots.snp_tmdb__movies where movie_id = {movie_id}"
            " and dbt_valid_to is null"
        )
        built.execute(
            f"update snapshots.snp_tmdb__movies set dbt_valid_to = null where movie_id = {movie_id}"
        )
        built.dbt(*selected)


VIEWS = """
    select nspname, relname, views.oid
    from pg_class as views join pg_namespace on pg_namespace.oid = relnamespace
    where relkind = 'v' and nspname in ('staging', 'intermediate') order by 1, 2
"""


def test_views_are_replaced_in_place_so_that_their_readers_stay(built):
    before = built.rows(VIEWS)
    built.dbt("run", "--select", "path:models/staging")
    assert built.rows(VIEWS) == before
    assert len(before) > 20


@pytest.mark.parametrize("kind", ["view", "table"])
def test_a_view_whose_columns_change_is_made_anew(kind: str, built):
    name = "intermediate.int_transactions__bucketed"
    built.execute(f"drop view {name}; create {kind} {name} as select 1 as transaction_id")
    built.dbt("run", "--select", "int_transactions__bucketed")
    assert built.one(f"select count(distinct amount_bucket) from {name}") > 1
    assert built.one(f"select relkind from pg_class where oid = '{name}'::regclass") == "v"


def test_every_source_says_when_it_is_stale(manifest: dict):
    thresholds = {}
    for source in manifest["sources"].values():
        freshness = source["freshness"] or {}
        if all((freshness.get(k) or {}).get("count") for k in ("warn_after", "error_after")):
            thresholds.setdefault(source["source_name"], []).append(source["name"])
    assert thresholds.keys() == {"tmdb", "brands", "transactions"}


def test_failing_rows_are_stored_and_go_when_the_test_passes_again(built):
    name = "not_null_merchant_ranking_amount_rank"
    stored = f"select count(*) from pg_tables where tablename = '{name}'"
    built.dbt("test", "--select", name)
    assert built.one(stored) == 0, "a test that passes leaves no table"

    built.execute("alter table marts.merchant_ranking alter amount_rank drop not null")
    built.execute("update marts.merchant_ranking set amount_rank = null where amount_rank = 1")
    failed = built.dbt("test", "--select", name, check=False)
    assert failed.returncode == 1
    assert f'"test_failures"."{name}"' in failed.stdout, "dbt says where the rows are"
    assert built.one(f"select count(*) from test_failures.{name}") == 1

    built.dbt("build", "--select", "merchant_ranking")
    assert built.one(stored) == 0


def test_nothing_of_this_machine_is_tracked():
    files = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT_DIR, capture_output=True, text=True, check=False
    ).stdout.split()
    if not files:
        pytest.skip("not a git checkout")
    odd = re.compile(r"https?://[\w.-]*(pythonhosted|pypi)\.|/home/\w+/|/Users/\w+/")
    texts = {f: Path(PROJECT_DIR / f).read_text(encoding="utf-8", errors="ignore") for f in files}
    assert [
        f for f, text in texts.items() if odd.search(text) and not f.endswith("test_project.py")
    ] == []


def test_no_comma_cuts_a_command_of_make():
    """One in an argument of `call` ends it, and what follows is lost: another command runs."""
    makefile = (PROJECT_DIR / "Makefile").read_text("utf-8")
    calls = re.findall(r"\$\(call (\w+),((?:[^()]|\([^()]*\))*)\)", makefile)
    assert len(calls) > 30
    taken = {"environment": 1, "install": 2, "moved": 2}
    assert [
        (name, given)
        for name, given in calls
        if re.sub(r"\([^()]*\)", "", given).count(",") >= taken[name]
    ] == []
