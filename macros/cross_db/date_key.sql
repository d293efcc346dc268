{#
    Key of dim_date: the day as the integer yyyymmdd; 0, the unknown day,
    where there is none, or none of the calendar.
#}
{% macro date_key(date_column) -%}
    case
        when {{ is_plausible_date(date_column) }}
            then cast(
                extract(year from {{ date_column }}) * 10000
                + extract(month from {{ date_column }}) * 100
                + extract(day from {{ date_column }})
                as integer
            )
        else 0
    end
{%- endmacro %}
