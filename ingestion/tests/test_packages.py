"""Which dbt_utils the project builds with: one that is there, one's own, the stand-in."""

import shutil
from pathlib import Path

import pytest

from ingestion import dbt_runner
from ingestion.errors import UserError
from ingestion.tests.test_dbt_utils import STAND_IN


@pytest.fixture
def installed(monkeypatch, tmp_path) -> Path:
    """Where the package goes; nothing is there yet, and the hub does not answer."""
    monkeypatch.setattr(dbt_runner, "PACKAGES", tmp_path / "dbt_packages")
    monkeypatch.setattr("dbt.clients.registry.DEFAULT_REGISTRY_BASE_URL", "http://127.0.0.1:9/")
    monkeypatch.delenv("MARQUEE_DBT_UTILS", raising=False)
    return tmp_path / "dbt_packages" / "dbt_utils"


def real(folder: Path, *, readme: bool = True) -> Path:
    """What the real package's folder looks like from outside."""
    (folder / "macros").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text("name: dbt_utils\n")
    (folder / "integration_tests").mkdir()
    (folder / "integration_tests" / "dbt_project.yml").write_text("name: tests\n")
    if readme:
        (folder / "README.md").write_text("# A package\n")
    return folder


@pytest.mark.parametrize("readme", [True, False])
def test_a_package_that_is_there_stays(installed, readme):
    before = sorted(real(installed, readme=readme).rglob("*"))
    assert dbt_runner.install_packages() == "dbt_utils is there"
    assert sorted(installed.rglob("*")) == before


def test_without_the_hub_the_stand_in_serves_and_is_renewed(installed):
    assert "stand-in" in dbt_runner.install_packages()
    (installed / "macros" / "safe_divide.sql").write_text("what an earlier version had")
    assert "stand-in" in dbt_runner.install_packages()
    macro = "macros/safe_divide.sql"
    assert (installed / macro).read_text() == (STAND_IN / macro).read_text()
    assert [path.name for path in installed.parent.iterdir()] == ["dbt_utils"]
    assert [path.name for path in installed.parent.parent.iterdir()] == ["dbt_packages"]


def test_half_a_package_is_replaced(installed):
    installed.mkdir(parents=True)
    assert "stand-in" in dbt_runner.install_packages()
    assert (installed / "dbt_project.yml").is_file()


def test_a_folder_of_ones_own_is_copied(installed, monkeypatch, tmp_path):
    shutil.copytree(STAND_IN, installed)
    monkeypatch.setenv("MARQUEE_DBT_UTILS", str(real(tmp_path / "checkout")))
    assert dbt_runner.install_packages() == f"dbt_utils from {tmp_path}/checkout"
    assert (installed / "README.md").read_text() == "# A package\n"
    assert not (installed / "integration_tests").exists(), "dbt would take it for a project"
    monkeypatch.setenv("MARQUEE_DBT_UTILS", str(installed))
    dbt_runner.install_packages()
    assert (installed / "README.md").read_text() == "# A package\n"


def test_a_folder_without_a_package_is_said_so(installed, monkeypatch, tmp_path):
    monkeypatch.setenv("MARQUEE_DBT_UTILS", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="holds no dbt package"):
        dbt_runner.install_packages()
    assert not installed.exists()
