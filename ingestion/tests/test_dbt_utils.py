"""What each macro of dbt_utils that the project uses accepts and refuses, on small tables.

The stand-in is tested, or the package in the folder that ``MARQUEE_DBT_UTILS`` names: what is
expected here is what the real package does, so that both build the project alike.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from psycopg2 import sql

from ingestion.tests.built import BIN, Built
from ingestion.tests.conftest import execute
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

STAND_IN = PROJECT_DIR / "packages" / "dbt_utils"
NULL_MARK = "_dbt_utils_surrogate_key_null_"


def rows(columns: str, *values: str) -> str:
    """A query of some rows; without any, of none."""
    names = columns.replace(":", " ").split(", ")
    casts = ", ".join(f"cast(null as {n.split()[1]}) as {n.split()[0]}" for n in names)
    empty = f"select {casts} where false"
    return "\nunion all\n".join([empty, *(f"select {value}" for value in values)])


TABLES = {
    "numbers": rows("id:int, a:int, b:int", "1, 1, 10", "2, 5, 5", "3, null, 7", "4, 9, null"),
    "pairs": rows("a:int, b:text", "1, 'x'", "1, 'y'", "2, 'x'"),
    "twice": rows("a:int, b:text", "1, 'x'", "1, 'x'", "1, 'x'", "2, null", "2, null"),
    "odd_names": 'select 1 as "Odd Name", 2 as "select" union all select 1, 3',
    "nothing": rows("id:int, a:int, b:int"),
    "three": rows("id:int, grp:text", "1, 'x'", "2, 'x'", "3, 'y'"),
    "also_three": rows("id:int, grp:text", "7, 'x'", "8, 'x'", "9, 'y'"),
    "skewed_three": rows("id:int, grp:text", "7, 'x'", "8, 'y'", "9, 'y'"),
    "one_group_more": rows("id:int, grp:text", "1, 'x'", "2, 'x'", "3, 'y'", "4, 'z'"),
    "null_group": rows("id:int, grp:text", "1, 'x'", "2, null", "3, null"),
    "null_group_less": rows("id:int, grp:text", "1, 'x'", "2, null"),
    # ranges, by what is odd of them
    "touching": rows("p:text, f:int, t:int", "'a', 1, 3", "'a', 3, 5", "'b', 2, 9"),
    "apart": rows("p:text, f:int, t:int", "'a', 1, 2", "'a', 3, 5"),
    "overlapping": rows("p:text, f:int, t:int", "'a', 1, 4", "'a', 3, 5"),
    "open_end": rows("p:text, f:int, t:int", "'a', 1, 3", "'a', 3, null"),
    "open_within": rows("p:text, f:int, t:int", "'a', 1, null", "'a', 3, 5"),
    "open_start": rows("p:text, f:int, t:int", "'a', null, 3", "'a', 3, 5"),
    "zero_length": rows("p:text, f:int, t:int", "'a', 1, 3", "'a', 3, 3", "'a', 3, 5"),
    "backwards": rows("p:text, f:int, t:int", "'a', 3, 1"),
    "no_partition": rows("p:text, f:int, t:int", "null, 1, 3", "null, 2, 4"),
}


class Case(NamedTuple):
    """A data test on a table, and how many failures it must have; "error" where SQL refuses it."""

    test: str
    table: str
    expected: int | str
    arguments: dict[str, Any]
    config: dict[str, Any] = {}  # noqa: RUF012


def unique(table: str, expected: int | str, columns: Any, **more: Any) -> Case:
    config = more.pop("config", {})
    arguments = {"combination_of_columns": columns, **more}
    return Case("unique_combination_of_columns", table, expected, arguments, config)


def between(table: str, expected: int | str, column: str = "a", **more: Any) -> Case:
    config = more.pop("config", {})
    return Case("accepted_range", table, expected, {"column_name": column, **more}, config)


def true(table: str, expected: int | str, expression: str, **more: Any) -> Case:
    config = more.pop("config", {})
    return Case("expression_is_true", table, expected, {"expression": expression, **more}, config)


def counted(table: str, expected: int | str, compared: str, **more: Any) -> Case:
    config = more.pop("config", {})
    arguments = {"compare_model": f"ref('{compared}')", **more}
    return Case("equal_rowcount", table, expected, arguments, config)


def ranges(table: str, expected: int | str, **more: Any) -> Case:
    config = more.pop("config", {})
    bounds = {"lower_bound_column": "f", "upper_bound_column": "t", "partition_by": "p"}
    return Case("mutually_exclusive_ranges", table, expected, bounds | more, config)


CASES = [
    unique("pairs", 0, ["a", "b"]),
    unique("pairs", 1, ["a"]),
    unique("pairs", 1, ["b"]),
    unique("pairs", 0, ["a", "b"], quote_columns=True),
    unique("twice", 2, ["a", "b"]),  # two nulls are the same
    unique("twice", 1, ["a", "b"], config={"where": "b is not null"}),
    unique("twice", 2, ["a", "b"], config={"store_failures": True}),
    unique("nothing", 0, ["id", "a"]),
    unique("odd_names", 1, ["Odd Name"], quote_columns=True),
    unique("odd_names", 0, ["Odd Name", "select"], quote_columns=True),
    unique("odd_names", "error", ["Odd Name"]),
    unique("odd_names", "error", ["odd name"], quote_columns=True),
    unique("pairs", 1, ["a + 1"]),
    unique("pairs", "error", ["a + 1"], quote_columns=True),
    unique("numbers", "error", "id"),  # no list
    unique("pairs", 1, "a"),  # of one letter, it goes for one
    unique("pairs", "error", []),
    unique("pairs", "error", ["c"]),
    between("numbers", 0, min_value=1, max_value=9),  # a null passes
    between("numbers", 1, min_value=2),
    between("numbers", 1, max_value=8),
    between("numbers", 2, min_value=1, max_value=9, inclusive=False),
    between("numbers", 0, min_value=0, max_value=10, inclusive=False),
    between("numbers", 0, min_value=0),  # 0 is a bound like any other
    between("numbers", 4, column="id", max_value=0),
    between("numbers", 0),  # no bound
    between("nothing", 0, min_value=1),
    between("numbers", 1, min_value="b - 2"),  # nulls of the bound pass
    between("numbers", 3, min_value="b", max_value=1),  # one bound is null, the other is broken
    between("numbers", 2, max_value="b", min_value=8),
    between("numbers", 1, column="a + b", max_value=10),
    between("numbers", 1, min_value=2, max_value=8, config={"where": "id < 4"}),
    between("numbers", 1, min_value=2, config={"store_failures": True}),
    between("numbers", "error", column="c", min_value=1),
    true("numbers", 0, "a <= 9"),  # a null passes
    true("numbers", 1, "a < b"),
    true("numbers", 0, "a < b or a = 5"),
    true("numbers", 2, "a > 1 and b > 5"),
    true("numbers", 1, "is not null", column_name="a"),
    true("numbers", 0, "> 0", column_name="a"),
    true("numbers", 0, "> 1 or a = 1", column_name="a"),
    true("numbers", 0, "between 0 and 9", column_name="a"),
    true("numbers", 0, "a < b", config={"where": "id = 1"}),
    true("numbers", 1, "a < b", config={"store_failures": True}),
    true("nothing", 0, "1 = 2"),
    true("numbers", 4, "1 = 2"),
    true("numbers", "error", "a"),  # a number is no condition
    true("numbers", "error", "a <"),
    counted("three", 0, "also_three"),
    counted("three", 1, "one_group_more"),
    counted("one_group_more", 1, "three"),
    counted("nothing", "error", "nothing"),  # a sum of no row is null
    counted("nothing", 0, "three"),  # nothing to join: use another test where this matters
    counted("three", 0, "nothing"),
    counted("three", 0, "also_three", group_by_columns=["grp"]),
    counted("three", 2, "skewed_three", group_by_columns=["grp"]),
    counted("three", 0, "skewed_three"),
    counted("three", 0, "one_group_more", group_by_columns=["grp"]),  # of one side only
    counted("null_group", 0, "null_group_less", group_by_columns=["grp"]),  # null joins nothing
    counted("null_group", 1, "null_group_less"),
    counted("three", 0, "also_three", group_by_columns=["grp", "grp"], config={"enabled": False}),
    counted("three", "error", "also_three", group_by_columns=["lower(grp)"]),
    counted("three", "error", "also_three", group_by_columns=["missing"]),
    counted("three", "error", "numbers", group_by_columns=["grp"]),
    counted("one_group_more", 0, "three", config={"where": "id < 4"}),  # of the model alone
    counted("three", 1, "one_group_more", config={"where": "id < 5"}),
    counted("three", 1, "one_group_more", config={"store_failures": True}),
    *(
        ranges(table, expected, gaps=gaps)
        for table, by_gaps in {
            "touching": {"allowed": 0, "not_allowed": 0, "required": 1},
            "apart": {"allowed": 0, "not_allowed": 1, "required": 0},
            "overlapping": {"allowed": 1, "not_allowed": 1, "required": 1},
            "open_end": {"allowed": 1, "not_allowed": 1, "required": 2},
            "open_within": {"allowed": 1, "not_allowed": 1, "required": 1},
            "backwards": {"allowed": 1, "not_allowed": 1, "required": 1},
            "nothing_of_ranges": {"allowed": 0, "not_allowed": 0, "required": 0},
        }.items()
        for gaps, expected in by_gaps.items()
    ),
    ranges("open_start", 2),
    ranges("zero_length", 1),
    ranges("zero_length", 0, zero_length_range_allowed=True),
    ranges("zero_length", 0, zero_length_range_allowed=True, gaps="not_allowed"),
    ranges("zero_length", 2, zero_length_range_allowed=True, gaps="required"),
    ranges("backwards", 1, zero_length_range_allowed=True),
    ranges("open_end", 1, zero_length_range_allowed=True),
    ranges("no_partition", 1),  # nulls are one partition
    ranges("touching", 2, partition_by=None),
    ranges("touching", 0, partition_by="lower(p)"),
    ranges("apart", 0, partition_by="p, f", config={"enabled": False}),
    ranges("open_end", 0, upper_bound_column="coalesce(t, 100)"),
    ranges("open_end", 0, upper_bound_column="coalesce(t, 100)", gaps="not_allowed"),
    ranges("overlapping", 0, config={"where": "f = 1"}),
    ranges("overlapping", 1, config={"store_failures": True}),
    ranges("touching", "error", partition_by="missing"),
    ranges("touching", "error", lower_bound_column="missing"),
]
TABLES["nothing_of_ranges"] = rows("p:text, f:int, t:int")

KEYS = {  # arguments of generate_surrogate_key to what is hashed
    "['a']": "1",
    "['a', 'b']": "1-x",
    "['b', 'a']": "x-1",
    "['n']": NULL_MARK,
    "['a', 'n']": f"1-{NULL_MARK}",
    "['e']": "",
    "['upper(b)', 'a + 1']": "X-2",
    "['a', 'cast(null as text)', 'e']": f"1-{NULL_MARK}-",
    "'ab'": "1-x",  # a text is a list of its letters
}
SERIES = {1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1, 2, 3, 4], 17: [*range(1, 18)]}
DIVISIONS = {
    "1, 0": None,
    "0, 5": 0,
    "null, 5": None,
    "5, null": None,
    "5, 2": 2,  # of whole numbers, as the database does it
    "'5.0', 2": 2.5,
    "'1 + 3', '1 + 1'": 2,
    "'1 - 1', '2 - 2'": None,
}
REFUSED = {  # what is refused before there is SQL, or by the database
    "series of none": "generate_series(0)",
    "series below none": "generate_series(-1)",
    "series of a text": "generate_series('3')",
    "series without end": "generate_series()",
    "series in a union": "generate_series(2) ~ ' union all select 3'",
    "key of arguments": "generate_surrogate_key('a', 'b')",
    "key of nothing": "generate_surrogate_key([])",
    "key without fields": "generate_surrogate_key()",
    "one number to divide": "safe_divide(1)",
    "gaps of another word": "test_mutually_exclusive_ranges(here, 'f', 't', gaps='none')",
    "gaps of no word": "test_mutually_exclusive_ranges(here, 'f', 't', gaps=none)",
    "ranges without bounds": "test_mutually_exclusive_ranges(here, partition_by='p')",
    "ranges without end": "test_mutually_exclusive_ranges(here, 'f')",
    "unique without columns": "test_unique_combination_of_columns(here)",
    "range without column": "test_accepted_range(here, min_value=1)",
    "nothing to be true": "test_expression_is_true(here)",
    "nothing to compare": "test_equal_rowcount(here)",
    "a word too many": "test_accepted_range(here, 'f', maximum=2)",
}


class Small(Built):
    """A small dbt project with the package, on a database of its own."""

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def write(self, models: dict[str, str], cases: list[Case]) -> None:
        package = Path(os.environ.get("MARQUEE_DBT_UTILS") or STAND_IN)
        shutil.rmtree(self.project, ignore_errors=True)
        shutil.copytree(package / "macros", self.project / "dbt_packages/dbt_utils/macros")
        shutil.copy(package / "dbt_project.yml", self.project / "dbt_packages/dbt_utils")
        project = {"name": "small", "profile": "marquee", "config-version": 2}
        (self.project / "dbt_project.yml").write_text(yaml.safe_dump(project))
        (self.project / "models").mkdir()
        for name, text in models.items():
            (self.project / f"models/{name}.sql").write_text(text)
        tests: dict[str, list] = {}
        for number, case in enumerate(cases):
            test = {"name": f"case_{number}", "arguments": case.arguments, "config": case.config}
            tests.setdefault(case.table, []).append({f"dbt_utils.{case.test}": test})
        tables = [{"name": name, "data_tests": given} for name, given in tests.items()]
        (self.project / "models/tests.yml").write_text(yaml.safe_dump({"models": tables}))
        self.write_profile()

    def run_dbt(self, *args: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [BIN / "dbt", "--no-use-colors", *args, "--project-dir", self.project],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def results(self) -> dict[str, dict]:
        found = json.loads((self.target_path / "run_results.json").read_text())["results"]
        return {result["unique_id"].split(".")[2]: result for result in found}


@pytest.fixture(scope="module")
def small(target: Target, tmp_path_factory: pytest.TempPathFactory):
    name = sql.Identifier("test_small")
    execute(target, sql.SQL("create database {} template template0").format(name))
    small = Small(replace(target, dbname=name.string), tmp_path_factory.mktemp("small"))
    try:
        yield small
    finally:
        execute(target, sql.SQL("drop database {} with (force)").format(name))


@pytest.fixture(scope="module")
def outcome(small: Small) -> dict[str, dict]:
    """What dbt says of every case, all run at once."""
    small.write(TABLES, CASES)
    said = small.run_dbt("run")
    assert said.returncode == 0, said.stdout
    said = small.run_dbt("test")
    assert "ERROR=" in said.stdout, said.stdout
    return small.results()


@pytest.mark.parametrize(
    ("number", "case"),
    [(n, c) for n, c in enumerate(CASES) if c.config.get("enabled", True)],
    ids=lambda value: f"{value.test}:{value.table}" if isinstance(value, Case) else str(value),
)
def test_a_data_test_fails_as_often_as_the_real_one(number, case, outcome):
    found = outcome[f"case_{number}"]
    said = "error" if found["status"] == "error" else found["failures"]
    assert said == case.expected, (case, found["message"])


def test_every_case_of_a_table_is_read(outcome):
    assert len(outcome) == sum(case.config.get("enabled", True) for case in CASES)


@pytest.fixture(scope="module")
def made(small: Small) -> Small:
    """Models of what the macros that write expressions give."""
    keys = [f"{{{{ dbt_utils.generate_surrogate_key({fields}) }}}}" for fields in KEYS]
    row = "select 1 as a, 'x' as b, cast(null as text) as n, '' as e"
    quotients = [f"{{{{ dbt_utils.safe_divide({pair}) }}}}" for pair in DIVISIONS]
    quotients = [
        text.replace("(null", "('null'").replace(", null", ", 'null'") for text in quotients
    ]
    models = {
        "keys": f"select {', '.join(f'{k} as k{n}' for n, k in enumerate(keys))} from ({row}) as r",
        "quotients": f"select {', '.join(f'{q} as q{n}' for n, q in enumerate(quotients))}",
    }
    for end in SERIES:
        call = f"{{{{ dbt_utils.generate_series({end}) }}}}"
        models[f"series_{end}"] = f"with series as (\n{call}\n)\nselect * from series"
    small.write(models, [])
    said = small.run_dbt("run")
    assert said.returncode == 0, said.stdout
    return small


def test_keys(made: Small):
    hashed = [hashlib.md5(text.encode()).hexdigest() for text in KEYS.values()]  # noqa: S324
    assert list(made.rows("select * from dev.keys")[0]) == hashed


def test_quotients(made: Small):
    found = [q if q is None else float(q) for q in made.rows("select * from dev.quotients")[0]]
    assert found == list(DIVISIONS.values())


@pytest.mark.parametrize("end", SERIES)
def test_series(end: int, made: Small):
    """The numbers are floats, which dates cannot be counted with; a cast must be written."""
    found = made.rows(f"select * from dev.series_{end}")
    assert [tuple(map(float, row)) for row in found] == [(number,) for number in SERIES[end]]
    kind = made.one(f"select distinct pg_typeof(generated_number)::text from dev.series_{end}")
    assert kind == "double precision"


def test_keys_where_nulls_are_empty(small: Small):
    call = "{{ dbt_utils.generate_surrogate_key(['cast(null as text)']) }}"
    small.write({"keys": f"select {call} as k"}, [])
    said = small.run_dbt("run", "--vars", "surrogate_key_treat_nulls_as_empty_strings: true")
    assert said.returncode == 0, said.stdout
    assert small.one("select k from dev.keys") == hashlib.md5(b"").hexdigest()  # noqa: S324


@pytest.fixture(scope="module")
def refused(small: Small) -> dict[str, dict]:
    """What dbt says of models that use a macro wrongly; while they are read, they do nothing."""
    models = {
        what.replace(" ", "_"): "-- depends_on: {{ ref('touching') }}\n{% if execute %}"
        f"{{% set here = ref('touching') %}}{{% set sql = dbt_utils.{call} %}}"
        "{{ sql if 'select' in sql and 'with' in sql else 'select ' ~ sql }}{% endif %}"
        for what, call in REFUSED.items()
    }
    small.write({"touching": TABLES["touching"]} | models, [])
    said = small.run_dbt("run")
    assert "ERROR=" in said.stdout, said.stdout
    return small.results()


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_arguments_are_refused(what: str, refused):
    found = refused[what.replace(" ", "_")]
    assert found["status"] == "error", found
