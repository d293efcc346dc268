{#
    The tables of the schema ops: what each run did. One block makes them, or
    brings those of an earlier release forward, and does nothing where it may
    not: evidence never stops a run. ingestion/evidence/tables.py runs the same
    block, as loads may come before the first build.
#}
{% macro evidence_tables_sql() -%}
    {%- set ops = generate_schema_name("ops", none) -%}
    {%- set reporter = marquee_roles().reporter -%}
    {%- set made_as = evidence_release() -%}
do $evidence$
declare
    folder constant text := {{ sql_text(ops) }};
    reporter constant text := {{ sql_text(reporter) }};
    path constant text := current_setting('search_path');
    ours text;
begin
    perform set_config('lock_timeout', '5s', true);
    -- of two that make them at once, one waits
    perform pg_advisory_xact_lock(hashtext('marquee evidence'), hashtext(folder));
    if not exists (select from pg_namespace where nspname = folder) then
        execute format('create schema %I', folder);
    end if;
    perform set_config('search_path', quote_ident(folder), true);
    select obj_description(oid, 'pg_class') into ours from pg_class
    where relnamespace = to_regnamespace(quote_ident(folder)) and relname = 'invocations';
    if coalesce(ours, '') not like 'Marquee: evidence of runs%' and exists (
        select from pg_class
        where relnamespace = to_regnamespace(quote_ident(folder)) and relname in (
            'invocations', 'steps', 'landings', 'totals', 'node_results',
            'freshness', 'table_sizes', 'mart_builds'
        )
    ) then
        raise exception 'the schema % holds tables of somebody else', folder;
    end if;
    create table if not exists invocations (
        invocation_id text primary key,
        run_id text not null,
        program text not null,
        command text not null,
        is_partial boolean not null default false,
        target_name text,
        version text,
        status text not null,
        exit_code integer,
        error text,
        started_at timestamptz not null,
        ended_at timestamptz,
        database_bytes bigint
    );
    create index if not exists invocations_started_at on invocations (started_at);
    create table if not exists steps (
        invocation_id text references invocations on delete cascade,
        step_number integer,
        step_name text not null,
        status text not null,
        started_at timestamptz not null,
        ended_at timestamptz,
        said text,
        primary key (invocation_id, step_number)
    );
    create table if not exists landings (
        invocation_id text references invocations on delete cascade,
        source_name text,
        table_name text,
        rows_landed bigint not null default 0,
        rows_rejected bigint not null default 0,
        primary key (invocation_id, source_name, table_name)
    );
    -- since the first run; old runs are deleted, sums are not
    create table if not exists totals (
        source_name text,
        table_name text,
        rows_landed bigint not null default 0,
        rows_rejected bigint not null default 0,
        primary key (source_name, table_name)
    );
    create table if not exists node_results (
        invocation_id text references invocations on delete cascade,
        unique_id text,
        resource_type text not null,
        node_name text not null,
        schema_name text,
        owner_name text,
        status text not null,
        seconds double precision,
        rows_affected bigint,
        failures bigint,
        message text,
        primary key (invocation_id, unique_id)
    );
    create table if not exists freshness (
        invocation_id text references invocations on delete cascade,
        source_name text,
        table_name text,
        status text not null,
        max_loaded_at timestamptz,
        checked_at timestamptz,
        primary key (invocation_id, source_name, table_name)
    );
    create table if not exists table_sizes (
        invocation_id text references invocations on delete cascade,
        schema_name text,
        table_name text,
        bytes bigint not null,
        estimated_rows bigint,
        primary key (invocation_id, schema_name, table_name)
    );
    -- the latest build of each mart (macros/operations/mart_builds.sql), which its readers may see
    create table if not exists mart_builds (
        relation_name text primary key,
        invocation_id text not null,
        built_at timestamptz not null
    );
    if exists (select from pg_roles where rolname = reporter) then
        execute format('grant usage on schema %I to %I', folder, reporter);
        execute format('grant select on mart_builds to %I', reporter);
    end if;
    execute format('comment on table invocations is %L', {{ sql_text(made_as) }});
    perform set_config('search_path', path, true);
exception when others or query_canceled then
    raise warning 'Runs leave no evidence: %', sqlerrm;
end
$evidence$
{%- endmacro %}

{# What the tables' comment says: another release has others. #}
{% macro evidence_release() -%}
    {{ return("Marquee: evidence of runs, 2") }}
{%- endmacro %}
