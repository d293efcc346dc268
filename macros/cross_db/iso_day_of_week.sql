{# Monday is 1, Sunday is 7. #}
{% macro iso_day_of_week(date_column) -%}
    {{ return(adapter.dispatch("iso_day_of_week")(date_column)) }}
{%- endmacro %}

{% macro default__iso_day_of_week(date_column) -%}
    extract(dayofweek_iso from {{ date_column }})
{%- endmacro %}

{% macro postgres__iso_day_of_week(date_column) -%}
    extract(isodow from {{ date_column }})
{%- endmacro %}

{% macro duckdb__iso_day_of_week(date_column) -%}
    extract(isodow from {{ date_column }})
{%- endmacro %}
