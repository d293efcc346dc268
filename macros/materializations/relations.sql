{#
    What a schema of Spark has. dbt-spark asks for tables and describes each;
    a catalog of Iceberg tells views apart only when it is asked for them, and every
    table there is one of Iceberg.
#}
{% macro spark__list_relations_without_caching(relation) -%}
    {%- set views = run_query("show views in " ~ relation.schema).columns[1].values() -%}
    {%- set found = [] -%}
    {%- for name in views -%}
        {%- do found.append([relation.schema, name, false, "Type: VIEW"]) -%}
    {%- endfor -%}
    {%- for name in run_query("show tables in " ~ relation.schema).columns[1].values()
        if name not in views -%}
        {%- do found.append([relation.schema, name, false, "Provider: iceberg"]) -%}
    {%- endfor -%}
    {{- return(found) -}}
{%- endmacro %}

{#
    What a snapshot compares: a view of the session. dbt-spark makes one in the
    schema that the session happens to have, which a catalog of Iceberg need not have.
#}
{% macro spark_build_snapshot_staging_table(strategy, sql, target_relation) -%}
    {%- set staging = make_temp_relation(target_relation).incorporate(type="view") -%}
    {%- call statement("build_snapshot_staging_relation") -%}
        {{ create_temporary_view(
            staging, snapshot_staging_table(strategy, sql, target_relation)
        ) }}
    {%- endcall -%}
    {{- return(staging) -}}
{%- endmacro %}

{# All comments of a table in one statement: each is a commit. #}
{% macro spark__alter_column_comment(relation, column_dict) -%}
    {%- set comments = [] -%}
    {%- for name, column in column_dict.items() if column.description -%}
        {%- do comments.append(
            adapter.quote(name) ~ " comment " ~ sql_text(column.description)
        ) -%}
    {%- endfor -%}
    {%- if comments -%}
        {%- do run_query(
            "alter table " ~ relation ~ " alter column " ~ comments | join(", ")
        ) -%}
    {%- endif -%}
{%- endmacro %}
