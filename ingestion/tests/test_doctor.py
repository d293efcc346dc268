"""``marquee doctor``: says what is wrong and what to do, and shows no secret."""

from __future__ import annotations

from dataclasses import replace

import pytest
from click.testing import CliRunner

from ingestion import doctor
from ingestion.cli import doctor as command
from ingestion.errors import UserError
from ingestion.warehouse import fitness
from ingestion.warehouse.target import Target

SECRET = "0123456789abcdef-secret"


def found(target: Target) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.checks(lambda: target)}


def execute(target: Target, *statements: str) -> None:
    connection = target.connect()
    with connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def test_packages_and_python_fit_their_requirements(database):
    checks = found(database)
    for name in ("Python", *doctor.PACKAGES):
        assert checks[name].ok is True, checks[name]


def test_unfit_python_and_package_are_told(monkeypatch, database):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.1")
    monkeypatch.setattr(doctor, "PACKAGES", ("click", "not-a-package"))
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["click>=99", "not-a-package>=1"])
    checks = found(database)
    assert [checks[name].ok for name in ("Python", "click", "not-a-package")] == [False] * 3
    assert "wanted" in checks["Python"].detail
    assert "wanted click>=99" in checks["click"].detail


def test_profile_is_there_and_private(monkeypatch, tmp_path, database):
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))
    assert found(database)["profiles.yml"].ok is False
    profile = tmp_path / "profiles.yml"
    for mode, ok in ((0o644, None), (0o640, None), (0o600, True)):
        profile.touch()
        profile.chmod(mode)
        assert found(database)["profiles.yml"].ok is ok


def test_server_and_what_has_landed(monkeypatch, database):
    checks = found(database)
    assert checks["server"].ok is True
    assert database.place in checks["server"].detail
    assert (checks["raw tables"].ok, checks["raw tables"].detail) == (None, "nothing landed yet")

    execute(
        database,
        "create schema raw_brands",
        "create table raw_brands.brands as select generate_series(1, 45)",
        "analyze raw_brands.brands",
    )
    landed = found(database)["raw tables"]
    assert landed.ok is None
    assert "raw_brands.brands about 45" in landed.detail
    assert "raw_tmdb.movies not yet" in landed.detail

    monkeypatch.setattr(doctor, "RAW_TABLES", ("raw_brands.brands",))
    assert found(database)["raw tables"].ok is True
    monkeypatch.setattr(fitness, "OLDEST_SERVER", 99)
    assert found(database)["server"].ok is False


def test_login_that_may_not_create_schemas(database):
    role = f"guest_{database.dbname}"
    execute(database, f"create role {role} login password 'guest'")
    try:
        server = found(replace(database, user=role, password="guest"))["server"]
        assert server.ok is False
        assert f"grant create on database {database.dbname} to {role}" in server.remedy
    finally:
        execute(database, f"drop role {role}")


def test_server_that_is_not_there(database):
    server = found(replace(database, port=1, password=SECRET))["server"]
    assert server.ok is False
    assert server.remedy


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, "none: the bundled sample is used"),
        ({"TMDB_API_TOKEN": SECRET}, "environment"),
        ({"SOURCES__TMDB__API_TOKEN": SECRET}, "dlt's secrets"),
    ],
)
def test_token_is_told_by_its_place_only(environment, place, monkeypatch, tmp_path, database):
    monkeypatch.setattr("ingestion.sources.tmdb.ENV_FILE", tmp_path / ".env")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    token = found(database)["TMDB token"]
    assert place in token.detail
    assert SECRET not in repr(token)


def test_token_in_dotenv(monkeypatch, tmp_path, database):
    (tmp_path / ".env").write_text(f"TMDB_API_TOKEN={SECRET}\n")
    monkeypatch.setattr("ingestion.sources.tmdb.ENV_FILE", tmp_path / ".env")
    assert found(database)["TMDB token"].detail == "from .env"


def test_little_room_and_missing_dbt_packages(monkeypatch, tmp_path, database):
    monkeypatch.setattr(doctor, "packages_dir", lambda: tmp_path)
    monkeypatch.setattr(doctor, "FREE_GIGABYTES", 10**9)
    checks = found(database)
    assert checks["disk"].ok is None
    assert checks["dbt packages"].ok is False
    assert "marquee deps" in checks["dbt packages"].remedy


@pytest.mark.parametrize(("verdicts", "code"), [([True, None], 0), ([True, False], 1)])
def test_command_lists_everything_and_fails_on_a_failure(verdicts, code, monkeypatch):
    made = [
        doctor.Check(f"thing {ok}", ok, "as found", "" if ok else "correct it") for ok in verdicts
    ]
    monkeypatch.setattr(command, "checks", lambda _: made)
    result = CliRunner().invoke(command.doctor)
    assert result.exit_code == code
    assert "\x1b" not in result.output  # no colour where there is no terminal
    lines = result.output.splitlines()
    assert lines[0].split() == ["ok", "thing", "True", "as", "found"]
    assert lines[1].startswith("FAIL" if code else "warn")
    assert lines[2].strip() == "correct it"
    assert lines[2].index("correct") == lines[1].index("as found")


def test_every_failing_check_has_one_line_to_follow(monkeypatch, tmp_path):
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))
    monkeypatch.setattr(doctor, "packages_dir", lambda: tmp_path)

    def no_profile() -> Target:
        raise UserError("There is no profile.\nMake one.")

    for check in doctor.checks(no_profile):
        assert bool(check.remedy) == (check.ok is not True), check
        assert "\n" not in check.detail + check.remedy
