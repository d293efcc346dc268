{#
    Who may do what, on PostgreSQL. A loader lands raw data, a transformer runs
    dbt, a reporter reads marts. `dbt run-operation make_roles` makes the three;
    without them nothing here does anything, and one login may do it all.
#}

{#
    Before every run: let the reporter into the schemas that hold marts. dbt has
    made missing ones by then; tables get their grants as they are built.
#}
{% macro open_marts_to_reporter() -%}
    {%- if execute -%}
        {{ return(adapter.dispatch("open_marts_to_reporter")()) }}
    {%- endif -%}
{%- endmacro %}

{% macro default__open_marts_to_reporter() -%}{%- endmacro %}

{% macro postgres__open_marts_to_reporter() -%}
    {%- set reporter = marquee_roles().reporter -%}
    {%- set schemas = [] -%}
    {%- for node in graph.nodes.values()
        if is_for_reporter(node) and node.schema not in schemas -%}
        {%- do schemas.append(node.schema) -%}
    {%- endfor -%}
    {%- set closed = run_query(
        "select nspname from pg_namespace, pg_roles where rolname = "
        ~ sql_text(reporter)
        ~ " and nspname = any(" ~ text_array(schemas) ~ ")"
        ~ " and not has_schema_privilege(rolname, pg_namespace.oid, 'usage')"
        ~ " and pg_has_role(nspowner, 'usage')"
    ) -%}
    {%- for row in closed -%}
        grant usage on schema {{ adapter.quote(row[0]) }}
            to {{ adapter.quote(reporter) }};
    {%- endfor -%}
{%- endmacro %}

{% macro marquee_roles() -%}
    {{ return({
        "loader": var("loader_role"),
        "transformer": var("transformer_role"),
        "reporter": var("reporter_role"),
    }) }}
{%- endmacro %}

{% macro is_for_reporter(node) -%}
    {{ return(
        node.resource_type in ("model", "seed", "snapshot")
        and "reporter" in (node.config.get("grants") or {}).get("select", [])
    ) }}
{%- endmacro %}

{# SQL of an array of texts on PostgreSQL, empty ones included. #}
{% macro text_array(texts) -%}
    array[
    {%- for text in texts -%}
        {{ sql_text(text) }}
        {{- ", " if not loop.last }}
    {%- endfor -%}
    ]::text[]
{%- endmacro %}
