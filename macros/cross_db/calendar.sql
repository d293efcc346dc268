{#
    Which dates can be true. dim_date has the days of the years from
    calendar_first_year to calendar_last_year, and a date outside of them has the
    unknown day wherever it comes from; earliest dates of a single source narrow
    that. Infinity and years before Christ are outside as well.
#}

{# The calendar's first day, as text. #}
{% macro calendar_first_day() -%}
    {{- return("%04d-01-01" | format(var("calendar_first_year") | int)) -}}
{%- endmacro %}

{# The day after the calendar's last one, as text. #}
{% macro calendar_end() -%}
    {{- return("%04d-01-01" | format((var("calendar_last_year") | int) + 1)) -}}
{%- endmacro %}

{# The earliest date that a source may give, a variable's, as text: not before the calendar. #}
{% macro earliest_date(date) -%}
    {{- return([date | string, calendar_first_day()] | max) -}}
{%- endmacro %}

{# Condition: a date or a moment is a day of the calendar, not before the earliest one of its source. #}
{% macro is_plausible_date(expression, first=none) -%}
    (
        {{ expression }} >= cast('{{ first or calendar_first_day() }}' as date)
        and {{ expression }} < cast('{{ calendar_end() }}' as date)
    )
{%- endmacro %}
