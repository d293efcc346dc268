"""Two runs of dbt never build the same schemas at once, and a dead one is in nobody's way."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from ingestion.tests.built import Built
from ingestion.tests.test_dbt_commands import copy_of
from ingestion.tests.test_torture import Site, outcome
from ingestion.warehouse.target import Target

HELD = "intermediate.int_transactions__attributes"
RUN = ("dbt", "--no-use-colors", "run", "--select", "int_transactions__attributes")
TOLD = "Another dbt run has been running on these schemas since 20"


@pytest.fixture(scope="module")
def site(built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A copy of the built warehouse with a model that can be held up."""
    with copy_of(built, target, tmp_path_factory.mktemp("lease"), kind=Site) as copy:
        yield copy


def lease(site: Site) -> list[tuple]:
    return site.rows("select command, held_by from staging.build_lease")


@contextmanager
def a_run_under_way(site: Site, *command: str) -> Iterator[subprocess.Popen]:
    """A run that builds a model, whose table the test has locked."""
    with closing(site.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"lock table {HELD} in access exclusive mode")
        process = site.start(*(command or RUN))
        try:
            site.wait_until_held(process)
            yield process
            connection.rollback()
            said = outcome(process)
            assert process.returncode in (0, -signal.SIGKILL, 1, 2), said
        finally:
            connection.rollback()
            process.kill()
            process.communicate()


def test_the_second_is_told(site: Site):
    with a_run_under_way(site) as first:
        for command in ("build", "run", "test", "seed", "snapshot"):
            second = site.dbt(command, check=False)
            assert second.returncode != 0
            assert TOLD in second.stdout, second.stdout
            assert f"as {site.target.user}" in second.stdout
            assert "Wait until it has finished, or stop it, then run this again." in second.stdout
            begun = [line for line in second.stdout.splitlines() if " START " in line]
            assert all("hook" in line for line in begun), "nothing was built"
        assert first.poll() is None
    assert first.returncode == 0
    assert lease(site) == []


def test_marquee_run_tells_it_in_two_lines(site: Site, monkeypatch):
    from ingestion import dbt_runner
    from ingestion.errors import UserError

    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    with a_run_under_way(site), pytest.raises(UserError) as told:
        dbt_runner.dbt("build", replace(site.target, name="dev"), label="Building")
    first, second = told.value.message.splitlines()
    assert first.startswith(TOLD)
    assert second.startswith("Wait until it has finished")


BUILD_NOTHING_HERE = [
    "compile --select dim_city",
    "list",
    "docs generate --select dim_city",
    "show --inline select+1",
    "source freshness --select source:tmdb.genres",
    "run --target other --select stg_brands__brands",
]


def test_what_builds_nothing_here_goes_on(site: Site):
    with a_run_under_way(site):
        for command in BUILD_NOTHING_HERE:
            site.dbt(*(word.replace("+", " ") for word in command.split()))


def test_tables_in_use_do_not_change_hands(site: Site):
    """It would wait for the build, and the build for it."""
    with a_run_under_way(site):
        told = site.dbt("run-operation", "make_roles", check=False)
        assert told.returncode != 0
        assert "Run this again when it has finished." in told.stdout, told.stdout


def test_a_killed_run_is_in_nobodys_way(site: Site):
    """Nor is what the server goes on with for it, here a wait for a lock."""
    with a_run_under_way(site) as first:
        first.kill()
        first.wait()
        assert lease(site) == [("run", site.target.user)], "it could not give it back"
        done = site.dbt("run", "--select", "dim_genre", check=False)
        if TOLD in done.stdout:  # the server has not yet seen that it is gone
            time.sleep(2)
            done = site.dbt("run", "--select", "dim_genre")
        assert done.returncode == 0, done.stdout
        assert lease(site) == []


def test_an_interrupted_run_is_in_nobodys_way(site: Site):
    with a_run_under_way(site) as first:
        first.send_signal(signal.SIGINT)
        outcome(first)
        site.dbt("run", "--select", "dim_genre")
    assert lease(site) == []


def test_a_failed_run_gives_the_lease_back(site: Site):
    failed = site.dbt(
        "run", "--select", "dim_genre", "--vars", "{reporting_currency: 1}", check=False
    )
    assert lease(site) == []
    site.execute("alter table marts.dim_city rename to aside; create sequence marts.dim_city")
    try:
        failed = site.dbt("run", "--select", "dim_city", check=False)
        assert failed.returncode == 1
    finally:
        site.execute("drop sequence marts.dim_city; alter table marts.aside rename to dim_city")
    assert lease(site) == []


def test_a_run_that_was_taken_for_dead_is_told(site: Site):
    with closing(site.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"lock table {HELD} in access exclusive mode")
        first = site.start(*RUN)
        site.wait_until_held(first)
        site.execute("update staging.build_lease set invocation_id = 'another'")
        connection.rollback()
        said = outcome(first)
        assert first.returncode != 0
        assert "took it for dead and built as well" in said
    site.execute("delete from staging.build_lease")


def test_of_two_that_start_together_one_builds(site: Site):
    runs = [site.start(*RUN) for _ in range(2)]
    said = [outcome(process) for process in runs]
    codes = sorted(process.returncode for process in runs)
    assert codes[0] == 0, said
    assert codes[1] == 0 or TOLD in "".join(said), said
    assert lease(site) == []


def test_a_login_that_may_not_write_tests_without_a_lease(site: Site):
    """It builds nothing, so it needs no lease, and is not told."""
    site.execute(
        "drop role if exists lease_reader; create role lease_reader login password 'x';"
        " do $$ declare s text; begin foreach s in array"
        " array['staging', 'intermediate', 'marts', 'seeds', 'snapshots', 'raw_tmdb'] loop"
        " execute format('grant usage on schema %I to lease_reader', s);"
        " execute format('grant select on all tables in schema %I to lease_reader', s);"
        " end loop; end $$; revoke all on staging.build_lease from lease_reader"
    )
    reader = Site(replace(site.target, user="lease_reader", password="x"), site.folder / "reader")
    reader.folder.mkdir()
    reader.write_profile()
    try:
        with a_run_under_way(site):
            reader.dbt("test", "--select", "dim_genre", "--vars", "{store_failures: false}")
    finally:
        site.execute("drop owned by lease_reader; drop role lease_reader")


def test_statements_say_which_run_sends_them(site: Site):
    with a_run_under_way(site):
        [held] = site.rows(
            "select split_part(query, '*/', 1) from pg_stat_activity"
            " where wait_event_type = 'Lock' and datname = current_database()"
        )
        [(run,)] = site.rows("select invocation_id from staging.build_lease")
        assert f'"invocation_id": "{run}"' in held[0]
        assert '"node_id": "model.marquee.int_transactions__attributes"' in held[0]
