{#
    Key of dim_date: the day as the integer yyyymmdd; 0, the unknown day,
    where there is none.
#}
{% macro date_key(date_column) -%}
    coalesce(
        cast(
            extract(year from {{ date_column }}) * 10000
            + extract(month from {{ date_column }}) * 100
            + extract(day from {{ date_column }})
            as integer
        ),
        0
    )
{%- endmacro %}
