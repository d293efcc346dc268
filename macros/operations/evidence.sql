{#
    Evidence of every run, in the schema ops: what was run and how it ended, dbt's
    result for each node, freshness, sizes of tables. Written by hooks, from what
    dbt knows anyway, in one statement at the start and one at the end. No fault
    of theirs stops a run. `marquee` writes its own part beside it
    (ingestion/evidence); MARQUEE_RUN_ID ties both together.
#}

{# Before every run: say that it has begun, so that one that is killed is seen. #}
{% macro begin_evidence() -%}
    {%- if execute and flags.WHICH in recorded_commands() -%}
        {{ return(adapter.dispatch("begin_evidence")()) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__begin_evidence() -%}{%- endmacro %}

{% macro postgres__begin_evidence() -%}
    {%- if not evidence_can_be_written() -%}
        {%- do run_and_commit(evidence_tables_sql()) if may_make_evidence() -%}
    {%- endif -%}
    {%- if flags.WHICH != "freshness" and evidence_can_be_written() -%}
        {#- who has the lease knows that no other build is under way -#}
        {%- set steps = [
            "update " ~ evidence_table("invocations") ~ " set status = 'lost'"
            ~ " where program = 'dbt' and status = 'running';"
        ] if can_hold_build_lease() else [] -%}
        {%- do steps.append(invocation_sql("running")) -%}
        {%- do run_and_commit(whatever_happens(steps)) -%}
    {%- endif -%}
{%- endmacro %}

{#
    After every run: what came of it.
#}
{% macro end_evidence(results) -%}
    {%- if execute and flags.WHICH in recorded_commands() -%}
        {{ return(adapter.dispatch("end_evidence")(results)) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__end_evidence(results) -%}{%- endmacro %}

{% macro postgres__end_evidence(results) -%}
    {%- if not evidence_can_be_written() -%}
        {{ return("") }}
    {%- endif -%}
    {%- set failed = results | selectattr("status", "in", ["error", "fail", "runtime error"])
        | list -%}
    {%- set days = var("ops_keep_days") | int(-1) -%}
    {%- set steps = [
        invocation_sql("failed" if failed else "succeeded"),
        freshness_sql(results) if flags.WHICH == "freshness" else node_results_sql(results),
    ] -%}
    {%- if flags.WHICH not in ("freshness", "test") -%}
        {%- do steps.append(table_sizes_sql()) -%}
    {%- endif -%}
    {%- do steps.append(
        "delete from " ~ evidence_table("invocations") ~ " where status != 'running'"
        ~ " and coalesce(ended_at, started_at) < now() - " ~ days ~ " * interval '1 day';"
    ) if days >= 0 -%}
    {%- do run_and_commit(whatever_happens(steps)) -%}
{%- endmacro %}

{% macro recorded_commands() -%}
    {{ return(["build", "run", "test", "seed", "snapshot", "retry", "freshness"]) }}
{%- endmacro %}

{% macro evidence_table(name) -%}
    {{ return(api.Relation.create(
        schema=generate_schema_name("ops", none), identifier=name
    ) | string) }}
{%- endmacro %}

{# Whether the tables are there, are those of this release, and may be written. #}
{% macro evidence_can_be_written() -%}
    {%- set found = run_query(
        "select " ~ evidence_stands_sql(["select", "insert", "update"])
        ~ " and " ~ blocks_may_run()
    ) -%}
    {{ return(found.columns[0].values()[0]) }}
{%- endmacro %}

{# SQL of whether the tables are there, are those of this release, and this login has rights on them. #}
{% macro evidence_stands_sql(rights) -%}
    {%- set held = [] -%}
    {%- for right in rights -%}
        {%- do held.append(" and has_table_privilege(pg_class.oid, '" ~ right ~ "')") -%}
    {%- endfor -%}
    {{ return(
        "exists (select from pg_class"
        ~ " inner join pg_namespace on pg_namespace.oid = relnamespace"
        ~ " where nspname = " ~ sql_text(generate_schema_name("ops", none))
        ~ " and relname = 'invocations'"
        ~ " and obj_description(pg_class.oid, 'pg_class') = " ~ sql_text(evidence_release())
        ~ " and has_schema_privilege(pg_namespace.oid, 'usage')" ~ held | join ~ ")"
    ) }}
{%- endmacro %}

{% macro may_make_evidence() -%}
    {%- set found = run_query("select " ~ blocks_may_run()) -%}
    {{ return(found.columns[0].values()[0]) }}
{%- endmacro %}

{# SQL of whether this login may write, and catch what goes wrong on the way. #}
{% macro blocks_may_run() -%}
    {{ return(
        "current_setting('transaction_read_only') = 'off'"
        ~ " and has_language_privilege('plpgsql', 'usage')"
    ) }}
{%- endmacro %}

{# SQL that runs all steps or none, and never fails. #}
{% macro whatever_happens(steps) -%}
    {%- set mark = "$evidence_" ~ invocation_id | replace("-", "") ~ "$" -%}
    {{ return(
        "do " ~ mark ~ " begin"
        ~ " perform set_config('lock_timeout', '2s', true);\n"
        ~ steps | join("\n")
        ~ "\nexception when others or query_canceled then"
        ~ " raise warning 'This run leaves no evidence: %', sqlerrm;"
        ~ " end " ~ mark
    ) }}
{%- endmacro %}

{# SQL of the row of this run. #}
{% macro invocation_sql(status) -%}
    {%- set args = invocation_args_dict or {} -%}
    {%- set is_partial = args.get("select") or args.get("exclude") or args.get("selector")
        or args.get("resource_types") or args.get("exclude_resource_types") -%}
    {%- set ended = "null" if status == "running" else "clock_timestamp()" -%}
    {%- set size = "null" if status == "running" else "pg_database_size(current_database())" -%}
    {{ return(
        "insert into " ~ evidence_table("invocations")
        ~ " (invocation_id, run_id, program, command, is_partial, target_name, version, status,"
        ~ " started_at, ended_at, database_bytes) values ("
        ~ sql_text(invocation_id) ~ ", "
        ~ sql_text(env_var("MARQUEE_RUN_ID", "") or invocation_id) ~ ", 'dbt', "
        ~ sql_text(flags.WHICH) ~ ", " ~ ("true" if is_partial else "false") ~ ", "
        ~ sql_text(target.name) ~ ", " ~ sql_text(dbt_version) ~ ", " ~ sql_text(status) ~ ", "
        ~ sql_text(run_started_at.isoformat()) ~ ", " ~ ended ~ ", " ~ size
        ~ ") on conflict (invocation_id) do update set status = excluded.status,"
        ~ " ended_at = excluded.ended_at, database_bytes = excluded.database_bytes;"
    ) }}
{%- endmacro %}

{#
    SQL of dbt's result for each node. Of builds beside a stream, which are many,
    only what did not succeed: MARQUEE_EVIDENCE_NODES=failed.
#}
{% macro node_results_sql(results) -%}
    {%- set rows, owners = [], owners_by_folder() -%}
    {%- set only_failed = env_var("MARQUEE_EVIDENCE_NODES", "all") == "failed" -%}
    {%- for result in results
        if result.node.resource_type != "operation"
        and not (only_failed and result.status in ("success", "pass")) -%}
        {%- set node, said = result.node, result.adapter_response or {} -%}
        {%- set is_well = result.status in ("success", "pass") -%}
        {#- what has no value is none, and no kind of result lacks a default -#}
        {%- do rows.append({
            "unique_id": node.unique_id,
            "resource_type": node.resource_type | string,
            "node_name": node.name,
            "schema_name": node.schema | default(none),
            "owner_name": owner_of(node, owners),
            "status": result.status | string,
            "seconds": result.execution_time | default(0) | float,
            "rows_affected": none if node.resource_type in ("test", "unit_test")
                else whole_number(said.rows_affected),
            "failures": whole_number(result.failures),
            "message": none if is_well else (result.message | default("", true) | string)[:500],
        }) -%}
    {%- endfor -%}
    {{ return(insert_rows_sql("node_results", rows, {
        "unique_id": "text", "resource_type": "text", "node_name": "text",
        "schema_name": "text", "owner_name": "text", "status": "text",
        "seconds": "double precision", "rows_affected": "bigint",
        "failures": "bigint", "message": "text",
    })) }}
{%- endmacro %}

{% macro whole_number(value) -%}
    {{ return(value if value is integer and value >= 0 else none) }}
{%- endmacro %}

{% macro freshness_sql(results) -%}
    {%- set rows = [] -%}
    {%- for result in results if result.node.resource_type == "source" -%}
        {%- set measured = result.max_loaded_at is defined and result.max_loaded_at -%}
        {%- do rows.append({
            "source_name": result.node.source_name,
            "table_name": result.node.name,
            "status": result.status | string,
            "max_loaded_at": result.max_loaded_at.isoformat() if measured else none,
            "checked_at": result.snapshotted_at.isoformat() if measured else none,
        }) -%}
    {%- endfor -%}
    {{ return(insert_rows_sql("freshness", rows, {
        "source_name": "text", "table_name": "text", "status": "text",
        "max_loaded_at": "timestamptz", "checked_at": "timestamptz",
    })) }}
{%- endmacro %}

{# SQL of the sizes of all tables of dbt's schemas and those of its sources. #}
{% macro table_sizes_sql() -%}
    {%- set schemas = [] -%}
    {%- for node in (graph.nodes.values() | list) + (graph.sources.values() | list)
        if node.schema not in schemas -%}
        {%- do schemas.append(node.schema) -%}
    {%- endfor -%}
    {{ return(
        "insert into " ~ evidence_table("table_sizes")
        ~ " select " ~ sql_text(invocation_id) ~ ", nspname, relname,"
        ~ " pg_total_relation_size(pg_class.oid), greatest(reltuples, 0)"
        ~ " from pg_class inner join pg_namespace on pg_namespace.oid = relnamespace"
        ~ " where relkind in ('r', 'p', 'm') and nspname = any("
        ~ text_array(schemas) ~ ") on conflict do nothing;"
    ) }}
{%- endmacro %}

{# SQL that inserts rows of this run, handed over as JSON. #}
{% macro insert_rows_sql(table, rows, columns) -%}
    {%- set types = [] -%}
    {%- for column, type in columns.items() -%}
        {%- do types.append(column ~ " " ~ type) -%}
    {%- endfor -%}
    {%- set names = columns.keys() | join(", ") -%}
    {#- PostgreSQL has no place for this one character in a text -#}
    {%- set json = tojson(rows, []) | replace("\\u0000", "") -%}
    {{ return(
        "insert into " ~ evidence_table(table) ~ " (invocation_id, " ~ names ~ ")"
        ~ " select " ~ sql_text(invocation_id) ~ ", " ~ names
        ~ " from json_to_recordset(" ~ sql_text(json) ~ ") as rows ("
        ~ types | join(", ") ~ ") on conflict do nothing;"
    ) }}
{%- endmacro %}

{#
    Who answers for a node: its meta `owner`, or the owner of its group, or of the
    group of what it tests, or of the models in its folder.
#}
{% macro owner_of(node, owners) -%}
    {%- set own = (node.config.get("meta") or {}).get("owner") -%}
    {%- if own -%}
        {{ return(own | string) }}
    {%- endif -%}
    {%- set near = [node.unique_id, node.attached_node | default("", true)] -%}
    {%- do near.extend(node.depends_on.nodes | default([])) -%}
    {%- for unique_id in near -%}
        {%- set group = graph.nodes.get(unique_id, {}).get("group") -%}
        {%- if group -%}
            {{ return(graph.groups["group." ~ project_name ~ "." ~ group].owner.name) }}
        {%- endif -%}
    {%- endfor -%}
    {%- set folder = node.original_file_path.split("/")[:-1] | join("/") -%}
    {{ return(owners.get(folder, "(nobody)")) }}
{%- endmacro %}

{% macro owners_by_folder() -%}
    {%- set owners = {} -%}
    {%- for node in graph.nodes.values() if node.resource_type == "model" and node.group -%}
        {%- set folder = node.original_file_path.split("/")[:-1] | join("/") -%}
        {%- do owners.update({
            folder: graph.groups["group." ~ project_name ~ "." ~ node.group].owner.name
        }) -%}
    {%- endfor -%}
    {{ return(owners) }}
{%- endmacro %}

{#
    SQL of all rows of a table of evidence, or of none where nothing writes any:
    on another engine, or with a login that may not. With --no-introspect nobody
    can ask.
#}
{% macro evidence_of(relation) -%}
    {%- if not execute or flags.INTROSPECT is sameas false or evidence_is_there() -%}
        select * from {{ relation }}
    {%- else -%}
        {%- set source_id = "source." ~ project_name ~ "." ~ model.sources[0] | join(".") -%}
        select
        {%- for column in graph.sources[source_id].columns.values() %}
            {{ dbt.cast("null", column.data_type) | trim }} as {{ column.name }}
            {{- "," if not loop.last }}
        {%- endfor %}
        where 1 = 0
    {%- endif -%}
{%- endmacro %}

{# Whether the tables of evidence are there, and are those of this release. #}
{% macro evidence_is_there() -%}
    {{ return(adapter.dispatch("evidence_is_there")()) }}
{%- endmacro %}

{% macro default__evidence_is_there() -%}
    {{ return(false) }}
{%- endmacro %}

{% macro postgres__evidence_is_there() -%}
    {%- set found = run_query("select " ~ evidence_stands_sql(["select"])) -%}
    {{ return(found.columns[0].values()[0]) }}
{%- endmacro %}
