{#
    Readings of a folded title that leave out what another source may not print.
    Releases and films are read by the same macros.
#}

{# "Anna's Glass Harbour": what is after a possessive at the beginning. #}
{% macro without_possessive(folded) -%}
    {{ regexp_remove(folded, "^[a-z0-9 .-]+(''s|s'') ") }}
{%- endmacro %}

{# "Glass Harbour: The Movie": what is before the word at the end. #}
{% macro without_movie(folded) -%}
    {{ regexp_remove(folded, "[ :,-]+(the )?movie *$") }}
{%- endmacro %}

{# "Glass Harbour: Part 2 - High Tide": what is after the last dash. #}
{% macro after_last_dash(folded) -%}
    {{ regexp_remove(folded, "^.* - ") }}
{%- endmacro %}

{# "Glass Harbour: High Tide": what is after the first colon. #}
{% macro after_colon(folded) -%}
    substr({{ folded }}, position(':' in {{ folded }}) + 1)
{%- endmacro %}

{# "Glass Harbour: High Tide": what is before the first colon. #}
{% macro before_colon(folded) -%}
    {{ dbt.split_part(folded, "':'", 1) }}
{%- endmacro %}
