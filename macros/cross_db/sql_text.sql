{# SQL of a list of texts, empty ones included. #}
{% macro text_array(texts) -%}
    array[
    {%- for text in texts -%}
        {{ sql_text(text) }}
        {{- ", " if not loop.last }}
    {%- endfor -%}
    ]::text[]
{%- endmacro %}

{# SQL of a text. #}
{% macro sql_text(text) -%}
    {{ return(dbt.string_literal(dbt.escape_single_quotes(text))) }}
{%- endmacro %}
