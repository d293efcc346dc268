{#
    When each mart was built last, in the table mart_builds of the schema ops: what
    reads marts through a cache (serving/api) knows by it when its answers are old.
    The row is written in the transaction that builds the mart, so both are seen at
    the same moment, and a build that is rolled back leaves the row of the one before.
#}

{# Hook after every mart. Does nothing where the table is missing: no build fails for it. #}
{% macro record_mart_build() -%}
    {%- if execute -%}
        {{ return(adapter.dispatch("record_mart_build")()) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__record_mart_build() -%}{%- endmacro %}

{% macro postgres__record_mart_build() -%}
    {%- set table = evidence_table("mart_builds") -%}
    {%- set writable = run_query(
        "select coalesce(has_schema_privilege(pg_namespace.oid, 'usage')"
        ~ " and has_table_privilege(pg_class.oid, 'insert')"
        ~ " and has_table_privilege(pg_class.oid, 'select')"
        ~ " and has_table_privilege(pg_class.oid, 'update'), false)"
        ~ " from pg_class inner join pg_namespace on pg_namespace.oid = relnamespace"
        ~ " where nspname = " ~ sql_text(generate_schema_name("ops", none))
        ~ " and relname = 'mart_builds'"
    ) -%}
    {%- if writable | length > 0 and writable.columns[0].values()[0] -%}
        {%- set relation_name = sql_text(this.schema ~ "." ~ this.identifier) -%}
        insert into {{ table }} (relation_name, invocation_id, built_at)
        values ({{ relation_name }}, {{ sql_text(invocation_id) }}, clock_timestamp())
        on conflict (relation_name) do update set
            invocation_id = excluded.invocation_id, built_at = excluded.built_at;
        select pg_notify('marquee_mart_builds', {{ relation_name }})
    {%- endif -%}
{%- endmacro %}
