{# A field of a JSON object that is kept as text, as text; null where there is none. #}
{% macro json_text(expression, field) -%}
    {{ return(adapter.dispatch("json_text")(expression, field)) }}
{%- endmacro %}

{% macro default__json_text(expression, field) -%}
    get_json_object({{ expression }}, {{ sql_text("$['" ~ field ~ "']") }})
{%- endmacro %}

{% macro postgres__json_text(expression, field) -%}
    (cast({{ expression }} as jsonb) ->> {{ sql_text(field) }})
{%- endmacro %}

{% macro duckdb__json_text(expression, field) -%}
    json_extract_string({{ expression }}, {{ sql_text('$."' ~ field ~ '"') }})
{%- endmacro %}
