{# Seconds between two moments, to the millisecond; null where one is missing. #}
{% macro seconds_between(began, ended) -%}
    cast(
        cast({{ dbt.datediff(began, ended, 'millisecond') }} as numeric(18, 3))
        / 1000 as numeric(18, 3)
    )
{%- endmacro %}
