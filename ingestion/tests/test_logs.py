"""``--log-format json``: one object a line, whoever speaks and whatever happens; data stay data."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ingestion.tests.built import Built
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

SHAPE = {"time", "level", "event", "run_id", "logger", "message"}


@pytest.fixture
def site(database: Target, tmp_path: Path) -> Built:
    made = Built(database, tmp_path, variables={"MARQUEE_RUN_ID": "nightly-7"})
    made.write_profile()
    return made


def lines(text: str) -> list[dict]:
    found = [json.loads(line) for line in text.splitlines()]
    assert all(line.keys() >= SHAPE for line in found)
    assert {line["run_id"] for line in found} == {"nightly-7"}
    assert all(line["level"] in ("debug", "info", "warning", "error") for line in found)
    return found


@pytest.mark.parametrize(
    "command",
    ["nosuch", "--nope", "db nosuch", "db", "ingest transactions", "metrics --output"],
)
@pytest.mark.parametrize("way", ["--log-format json", "--log-format=json", ""])
def test_a_mistake_is_one_line(site: Built, command: str, way: str):
    if not way:
        site.variables["MARQUEE_LOG_FORMAT"] = "json"
    done = site.marquee(*way.split(), *command.split(), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = lines(done.stderr)
    assert (line["level"], line["event"]) == ("error", "misused")


def test_what_a_program_asked_for_is_printed_as_it_is(site: Built):
    asked = (
        *("db url", "db url --no-password", "--help", "db --help", "--version"),
        *("dbt --version", "dbt --quiet ls -s dim_genre"),
    )
    plain = [site.marquee(*command.split()).stdout for command in asked]
    site.variables["MARQUEE_LOG_FORMAT"] = "json"
    assert plain[0] == site.target.url + "\n"
    assert [site.marquee(*command.split()).stdout for command in asked] == plain


def test_dbt_has_the_shape_whatever_it_is_told(site: Built):
    site.variables["MARQUEE_LOG_FORMAT"] = "json"
    for command in ("parse", "compile -s dim_genre", "run-operation nosuch", "build -s nosuch",
                    "build --nope", "nosuch"):  # fmt: skip
        done = site.marquee("dbt", *command.split(), check=False)
        found = lines(done.stdout + done.stderr)
        assert found, command
        assert done.returncode == (0 if command.split()[0] in ("parse", "compile") else 2) or (
            done.returncode == 0 and "nosuch" in command
        ), (command, found)


def test_a_traceback_is_one_line(site: Built):
    done = site.marquee("--debug", "--log-format", "json", "ingest", "brands", "/no", check=False)
    [line] = [line for line in lines(done.stderr) if line["event"] == "failed"]
    assert line["message"].startswith("Traceback (most recent call last):\n")


@pytest.mark.parametrize(
    ("statement", "level", "said"),
    [
        ("raise ValueError('odd\\nvalue')", "error", "ValueError: odd\nvalue"),
        ("threading.Thread(target=lambda: 1 / 0).start()", "error", "ZeroDivisionError"),
        ("type('T', (), {'__del__': lambda self: 1 / 0})()", "error", "ZeroDivisionError"),
        ("warnings.warn('old\\nway', stacklevel=1)", "warning", "UserWarning: old"),
        ("logging.getLogger('some.library').error('%d of %s', 'x')", "error", "%d of %s"),
        ("logging.getLogger('dlt').warning('two\\nlines')", "warning", "two\nlines"),
        ("logging.getLogger('x').exception('bad', exc_info=KeyError('k'))", "error", "bad: 'k'"),
    ],
)
def test_what_libraries_say_and_crashes_are_one_line(statement: str, level: str, said: str):
    begin = "import logging, threading, warnings; from ingestion import logs; logs.settle('json'); "
    done = subprocess.run(
        [sys.executable, "-c", begin + statement], capture_output=True, text=True,
        env={"MARQUEE_RUN_ID": "nightly-7"}, check=False,
    )  # fmt: skip
    [line] = lines(done.stderr)
    assert line["level"] == level
    assert said in line["message"]


def test_the_example_for_vector_holds_together():
    """As far as that shows without Vector: its parts name each other, its sample has our shape."""
    config = yaml.safe_load((PROJECT_DIR / "deploy" / "logs" / "vector.yaml").read_text("utf-8"))
    known = {*config["sources"], *config["transforms"]}
    for part in (*config["transforms"].values(), *config["sinks"].values()):
        assert set(part["inputs"]) <= known
    sample = json.loads(config["tests"][0]["inputs"][0]["log_fields"]["message"])
    assert sample.keys() >= SHAPE
    labels = " ".join(config["sinks"]["loki"]["labels"].values())
    assert set(re.findall(r"{{ (\w+) }}", labels)) <= SHAPE
