{#
    A seed's table stays when its file gets another column, so that the views
    which read it stay too; dbt's own way fails on a column that the table does
    not have. Where a column has gone or is of another type, the table is made
    anew, as with --full-refresh: the views that read it go, until they are built.
#}
{% macro postgres__reset_csv_table(model, full_refresh, old_relation, agate_table) -%}
    {%- if full_refresh or was_recorded_as_it_is() -%}
        {{- return(default__reset_csv_table(
            model, full_refresh, old_relation, agate_table
        )) -}}
    {%- endif -%}
    {%- set declared = seed_columns(model, agate_table) -%}
    {%- set draft = make_intermediate_relation(old_relation) -%}
    {%- do drop_relation_if_exists(load_cached_relation(draft)) -%}
    {%- call statement("draft") -%}
        create table {{ draft }} ({{ declared | join(", ") }})
    {%- endcall -%}
    {%- set wanted = {} -%}
    {%- for column in adapter.get_columns_in_relation(draft) -%}
        {%- do wanted.update({column.name: [column.data_type, declared[loop.index0]]}) -%}
    {%- endfor -%}
    {%- do adapter.drop_relation(draft) -%}
    {%- set differing = [] -%}
    {%- for column in adapter.get_columns_in_relation(old_relation) -%}
        {%- if wanted.pop(column.name, [none])[0] != column.data_type -%}
            {%- do differing.append(column.name) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for data_type, declaration in wanted.values() if not differing -%}
        {%- call statement("add_column") -%}
            alter table {{ old_relation }} add column {{ declaration }}
        {%- endcall -%}
    {%- endfor -%}
    {{- return(default__reset_csv_table(
        model, differing | length > 0, old_relation, agate_table
    )) -}}
{%- endmacro %}

{# Declarations of a seed's columns, as dbt makes its table. #}
{% macro seed_columns(model, agate_table) -%}
    {%- set declared = [] -%}
    {%- for name in agate_table.column_names -%}
        {%- set type = model.config.get("column_types", {}).get(
            name, adapter.convert_type(agate_table, loop.index0)
        ) -%}
        {%- do declared.append(adapter.quote_seed_column(
            name, model.config.get("quote_columns")
        ) ~ " " ~ type) -%}
    {%- endfor -%}
    {{- return(declared) -}}
{%- endmacro %}

{# On Spark a seed is replaced in one statement, by load_csv_rows: nobody sees it empty. #}
{% macro spark__reset_csv_table(model, full_refresh, old_relation, agate_table) -%}{%- endmacro %}

{% macro spark__create_csv_table(model, agate_table) -%}{%- endmacro %}

{% macro spark__load_csv_rows(model, agate_table) -%}
    {%- set columns, rows = [], [] -%}
    {%- for declared in seed_columns(model, agate_table) -%}
        {%- set name, type = declared.split(" ", 1) -%}
        {%- do columns.append(dbt.cast(name, type) | trim ~ " as " ~ name) -%}
    {%- endfor -%}
    {%- for row in agate_table.rows -%}
        {%- set values = [] -%}
        {%- for value in row -%}
            {%- do values.append("null" if value is none else sql_text(value | string)) -%}
        {%- endfor -%}
        {%- do rows.append("(" ~ values | join(", ") ~ ")") -%}
    {%- endfor -%}
    {%- set sql -%}
        create or replace table {{ this }}
        {{ file_format_clause() }}
        {{ comment_clause() }}
        as select {{ columns | join(", ") }}
        from values {{ rows | join(", ") }}
            as seed_rows ({{ agate_table.column_names | join(", ") }})
    {%- endset -%}
    {%- do adapter.add_query(sql, abridge_sql_log=true) -%}
    {{- return(sql) -}}
{%- endmacro %}
