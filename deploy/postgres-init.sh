#!/bin/sh
# What the image of PostgreSQL runs once, over an empty volume: the login that Marquee has, with its database, those of
# Superset and Airflow, and the login of postgres-exporter. docs/operations.md says what each may do.
set -eu
marquee=$(cat "${SECRETS:-/run/secrets}/marquee_password")
monitor=$(cat "${SECRETS:-/run/secrets}/monitor_password")
psql -v ON_ERROR_STOP=1 -v marquee="$marquee" -v monitor="$monitor" --username="${POSTGRES_USER:-postgres}" \
  --dbname=postgres --no-psqlrc --quiet <<'SQL'
create role marquee login createrole password :'marquee';
create role marquee_monitor login connection limit 5 password :'monitor' in role pg_monitor;
create database marquee owner marquee template template0 encoding 'UTF8';
create database superset owner marquee template template0 encoding 'UTF8';
create database airflow owner marquee template template0 encoding 'UTF8';
revoke all on database marquee, superset, airflow from public;
grant connect on database marquee to marquee_monitor;
SQL
