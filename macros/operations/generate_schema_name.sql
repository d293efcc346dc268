{#
    Where a model goes. On the default target (var default_target) the schemas
    are called staging, intermediate, marts, snapshots and seeds; on any other
    target they are prefixed with that target's schema, so that several people
    and CI can share one database. A file of DuckDB is shared with nobody, and the
    target that is called spark is the default one of its catalog.
#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- if custom_schema_name is none -%}
        {{ target.schema }}
    {%- elif target.name in (var("default_target"), "spark") or target.type == "duckdb" -%}
        {{ custom_schema_name | trim }}
    {%- else -%}
        {{ target.schema }}_{{ custom_schema_name | trim }}
    {%- endif -%}
{%- endmacro %}
