{#
    Before every run: stop where raw tables of an older release lack a column, or
    a table beside them, that a selected model reads. Loads make them, not dbt; on
    DuckDB and Spark a copy does, and without one there are none.
#}
{% macro check_raw_tables() -%}
    {%- set read, there, lacking = [], [], [] -%}
    {%- for unique_id in selected_resources if execute -%}
        {%- do read.extend(graph.nodes.get(unique_id, {}).get("depends_on", {}).get("nodes", [])) -%}
    {%- endfor -%}
    {%- set sources = [] -%}
    {%- for unique_id in read | unique
        if unique_id in graph.sources and graph.sources[unique_id].source_name != "ops" -%}
        {%- do sources.append(graph.sources[unique_id]) -%}
    {%- endfor -%}
    {%- for source in sources -%}
        {%- set table = adapter.get_relation(
            source.database, source.schema, source.identifier
        ) -%}
        {%- if table is not none -%}
            {%- do there.append(source.schema) -%}
            {%- set columns = adapter.get_columns_in_relation(table) | map(attribute="name") | list -%}
            {%- for column in source.columns if column not in columns -%}
                {%- do lacking.append(source.schema ~ "." ~ source.identifier ~ "." ~ column) -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for source in sources if source.schema in there or raw_tables_are_copies() -%}
        {%- if adapter.get_relation(source.database, source.schema, source.identifier) is none -%}
            {%- do lacking.append(source.schema ~ "." ~ source.identifier) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if lacking -%}
        {%- do exceptions.raise_compiler_error(
            "The raw tables are of an older copy, or there are none; they lack "
            ~ lacking | join(", ") ~ ".\nRun: marquee export raw --to " ~ target.name
            if raw_tables_are_copies() else
            "The raw tables are of an older release; they lack " ~ lacking | join(", ")
            ~ ".\nRun: marquee run (it adds what is missing, and every row stays)"
        ) -%}
    {%- endif -%}
{%- endmacro %}

{# Whether raw tables are copied here from where they landed. #}
{% macro raw_tables_are_copies() -%}
    {{- return(adapter.dispatch("raw_tables_are_copies")()) -}}
{%- endmacro %}

{% macro default__raw_tables_are_copies() -%}
    {{- return(false) -}}
{%- endmacro %}

{% macro duckdb__raw_tables_are_copies() -%}
    {{- return(true) -}}
{%- endmacro %}

{% macro spark__raw_tables_are_copies() -%}
    {{- return(raw_files() is not none) -}}
{%- endmacro %}
