{#
    Remove every match of a regular expression. Patterns keep to what
    PostgreSQL and Java read alike: no backslash, no look-around.
#}
{% macro regexp_remove(expression, pattern) -%}
    {{ return(adapter.dispatch("regexp_remove")(expression, pattern)) }}
{%- endmacro %}

{% macro default__regexp_remove(expression, pattern) -%}
    regexp_replace({{ expression }}, '{{ pattern }}', '')
{%- endmacro %}

{% macro postgres__regexp_remove(expression, pattern) -%}
    regexp_replace({{ expression }}, '{{ pattern }}', '', 'g')
{%- endmacro %}
