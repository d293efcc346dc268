{# In English, whatever the session's language is; null for no day. #}
{% macro weekday_name(date_column) -%}
case {{ iso_day_of_week(date_column) }}
    {%- for name in [
        'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday',
        'Sunday'
    ] %}
    when {{ loop.index }} then '{{ name }}'
    {%- endfor %}
end
{%- endmacro %}
