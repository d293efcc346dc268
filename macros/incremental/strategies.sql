{#
    How an engine writes what a step replaces. Which model uses which, and why,
    is in models/intermediate/transactions/README.md.
#}

{# Rows of the same unique_key are replaced; a key has one row. #}
{% macro replace_keys() -%}
    {{- return(adapter.dispatch("replace_keys")()) -}}
{%- endmacro %}

{% macro default__replace_keys() -%}
    {{- return("delete+insert") -}}
{%- endmacro %}

{% macro spark__replace_keys() -%}
    {{- return("merge") -}}
{%- endmacro %}

{# The whole table is replaced, without being dropped: see delete_all_before_step. #}
{% macro replace_all() -%}
    {{- return(adapter.dispatch("replace_all")()) -}}
{%- endmacro %}

{% macro default__replace_all() -%}
    {{- return("append") -}}
{%- endmacro %}

{% macro spark__replace_all() -%}
    {{- return("insert_overwrite") -}}
{%- endmacro %}

{#
    Rows that a step merges are a table first, <model>__step of the schema
    intermediate: Spark merges none that come out of reflect(), and would compute
    them twice. The table stays until the next step.
#}
{% macro spark__get_merge_sql(
    target, source, unique_key, dest_columns, incremental_predicates
) -%}
    {%- set step = api.Relation.create(
        schema=generate_schema_name("intermediate", none),
        identifier=target.identifier ~ "__step",
        type="table"
    ) -%}
    {%- do run_query(
        "create or replace table " ~ step ~ " using iceberg as select * from " ~ source
    ) -%}
    {{ dbt.spark__get_merge_sql(
        target, step, unique_key, dest_columns, incremental_predicates
    ) }}
{%- endmacro %}
