{#
    One run at a time builds a target's schemas; a second one is told who holds
    them. dbt ends its connections between nodes, so no lock of a session lasts
    through a run. Instead a row in the target's schema staging names the run,
    and the comment of every statement says which run sends it (query-comment in
    dbt_project.yml): a run of which no session is seen for some seconds is dead,
    and the next one takes its place.
#}

{# Before every run: take the lease, or stop and say who has it. #}
{% macro take_build_lease() -%}
    {%- if execute and flags.WHICH in ("build", "run", "test", "seed", "snapshot", "retry") -%}
        {{ return(adapter.dispatch("take_build_lease")()) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__take_build_lease() -%}{%- endmacro %}

{% macro postgres__take_build_lease() -%}
    {%- if not can_hold_build_lease() -%}
        {{ return("") }}
    {%- endif -%}
    {%- for _ in range(25) -%}
        {%- do run_and_commit(
            "insert into " ~ build_lease() ~ " (invocation_id, command) values ("
            ~ sql_text(invocation_id) ~ ", " ~ sql_text(flags.WHICH)
            ~ ") on conflict do nothing"
        ) -%}
        {%- set holder = build_lease_holder() -%}
        {%- if holder is none or holder.invocation_id == invocation_id -%}
            {{ return("") }}
        {%- elif holder.pid is not none -%}
            {{ exceptions.raise_database_error(
                "Another dbt " ~ holder.command ~ " has been running on these schemas since "
                ~ holder.started_at ~ " UTC, as " ~ holder.held_by ~ " (run "
                ~ holder.invocation_id ~ ", server process " ~ holder.pid ~ ").\n"
                ~ "Wait until it has finished, or stop it, then run this again."
            ) }}
        {%- endif -%}
        {%- do run_and_commit("select pg_sleep(0.2)") -%}
        {%- if loop.last -%}
            {#- only one of several that wait finds this row -#}
            {%- do run_and_commit(
                "delete from " ~ build_lease() ~ " where invocation_id = "
                ~ sql_text(holder.invocation_id)
            ) -%}
            {{ return(postgres__take_build_lease()) }}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}

{# After every run: give the lease back. #}
{% macro return_build_lease() -%}
    {%- if execute and flags.WHICH in ("build", "run", "test", "seed", "snapshot", "retry") -%}
        {{ return(adapter.dispatch("return_build_lease")()) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__return_build_lease() -%}{%- endmacro %}

{% macro postgres__return_build_lease() -%}
    {%- if can_hold_build_lease() -%}
        {%- do run_and_commit(
            "delete from " ~ build_lease() ~ " where invocation_id = " ~ sql_text(invocation_id)
        ) -%}
        {%- set other = build_lease_holder() -%}
        {%- if other is not none -%}
            {{ exceptions.raise_database_error(
                "While this run stood still, another dbt " ~ other.command ~ " (run "
                ~ other.invocation_id ~ ") took it for dead and built as well.\n"
                ~ "Run dbt build again when that one has finished."
            ) }}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}

{# The table of the lease: one row while a run builds, none otherwise. #}
{% macro build_lease() -%}
    {{ return(api.Relation.create(
        schema=generate_schema_name("staging", none), identifier="build_lease"
    ) | string) }}
{%- endmacro %}

{#
    Makes the table if it is missing, and says whether this login may write to
    it: one that may only read and test does without a lease.
#}
{% macro can_hold_build_lease() -%}
    {%- set lease, schema = build_lease(), generate_schema_name("staging", none) -%}
    {%- set found = run_query(
        "select to_regclass(" ~ sql_text(lease) ~ ") is null and coalesce("
        ~ "(select has_schema_privilege(oid, 'create') from pg_namespace"
        ~ " where nspname = " ~ sql_text(schema) ~ "),"
        ~ " has_database_privilege(current_database(), 'create'))"
        ~ " and current_setting('transaction_read_only') = 'off'"
    ) -%}
    {%- if found.columns[0].values()[0] -%}
        {%- do run_and_commit(
            "create schema if not exists " ~ adapter.quote(schema) ~ ";"
            ~ " create table if not exists " ~ lease ~ " ("
            ~ "is_held boolean primary key default true check (is_held),"
            ~ " invocation_id text not null,"
            ~ " command text not null,"
            ~ " started_at timestamptz not null default now(),"
            ~ " held_by text not null default session_user,"
            ~ " application text not null default current_setting('application_name'))"
        ) -%}
    {%- endif -%}
    {%- set found = run_query(
        "select coalesce(current_setting('transaction_read_only') = 'off'"
        ~ " and has_table_privilege(lease, 'select')"
        ~ " and has_table_privilege(lease, 'insert')"
        ~ " and has_table_privilege(lease, 'delete'), false)"
        ~ " from to_regclass(" ~ sql_text(lease) ~ ") as lease"
    ) -%}
    {{ return(found.columns[0].values()[0]) }}
{%- endmacro %}

{#
    The run that holds the lease, with a session of it that the server knows, or
    none where nobody holds it. What other logins send is hidden from most: a
    session of the holder's login and program then counts as the holder.
#}
{% macro build_lease_holder() -%}
    {%- set found = run_query(
        "select invocation_id, command,"
        ~ " to_char(started_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') as started_at,"
        ~ " held_by, (select min(pid) from pg_stat_activity as sessions"
        ~ " where sessions.datname = current_database() and sessions.pid != pg_backend_pid()"
        ~ " and (split_part(sessions.query, '*/', 1) like '%' || lease.invocation_id || '%'"
        ~ " or (sessions.query = '<insufficient privilege>'"
        ~ " and sessions.usename = lease.held_by"
        ~ " and sessions.application_name = lease.application))) as pid"
        ~ " from " ~ build_lease() ~ " as lease"
    ) -%}
    {%- if found.rows -%}
        {{ return(found.rows[0].dict()) }}
    {%- endif -%}
    {{ return(none) }}
{%- endmacro %}

{# Hooks have no transaction of dbt's, but the driver begins one. #}
{% macro run_and_commit(sql) -%}
    {%- do run_query(sql) -%}
    {%- do run_query("commit") -%}
{%- endmacro %}

{# What stands before each statement: as dbt's own, and the run that sends it. #}
{% macro query_comment(connection_name, node) -%}
    {%- set said = {
        "app": "dbt",
        "dbt_version": dbt_version,
        "invocation_id": invocation_id,
        "profile_name": target.get("profile_name"),
        "target_name": target.get("target_name"),
    } -%}
    {%- if node is none -%}
        {%- do said.update({"connection_name": connection_name}) -%}
    {%- else -%}
        {%- do said.update({"node_id": node.unique_id}) -%}
    {%- endif -%}
    {{ return(tojson(said)) }}
{%- endmacro %}

{#
    Hook before a node: the server ends what it does for this session soon after
    dbt is gone. A killed build would otherwise go on in the server, hold its
    locks, and look alive to the next one.
#}
{% macro end_with_the_client() -%}
    {%- if execute -%}
        {{ return(adapter.dispatch("end_with_the_client")()) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__end_with_the_client() -%}{%- endmacro %}

{#- not every system can tell, and PostgreSQL refuses the setting there -#}
{% macro postgres__end_with_the_client() -%}
    select set_config('client_connection_check_interval', '1s', false)
    where
        version() like '%linux%'
        or (
            version() like '%darwin%'
            and cast(current_setting('server_version_num') as integer) >= 150000
        )
{%- endmacro %}
