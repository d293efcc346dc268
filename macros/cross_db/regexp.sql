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

{#- s: a dot is any character, line ends too, as on PostgreSQL -#}
{% macro duckdb__regexp_remove(expression, pattern) -%}
    regexp_replace({{ expression }}, '{{ pattern }}', '', 'gs')
{%- endmacro %}

{# The first match of a regular expression, or null. #}
{% macro regexp_first(expression, pattern) -%}
    {{ return(adapter.dispatch("regexp_first")(expression, pattern)) }}
{%- endmacro %}

{% macro default__regexp_first(expression, pattern) -%}
    nullif(regexp_extract({{ expression }}, '({{ pattern }})', 1), '')
{%- endmacro %}

{% macro postgres__regexp_first(expression, pattern) -%}
    substring({{ expression }} from '{{ pattern }}')
{%- endmacro %}

{% macro duckdb__regexp_first(expression, pattern) -%}
    nullif(regexp_extract({{ expression }}, '{{ pattern }}', 0, 's'), '')
{%- endmacro %}

{# Replace every match of a regular expression by a text without backslash and dollar. #}
{% macro regexp_replace_all(expression, pattern, replacement) -%}
    {{ return(adapter.dispatch("regexp_replace_all")(
        expression, pattern, replacement
    )) }}
{%- endmacro %}

{% macro default__regexp_replace_all(expression, pattern, replacement) -%}
    regexp_replace({{ expression }}, '{{ pattern }}', '{{ replacement }}')
{%- endmacro %}

{% macro postgres__regexp_replace_all(expression, pattern, replacement) -%}
    regexp_replace({{ expression }}, '{{ pattern }}', '{{ replacement }}', 'g')
{%- endmacro %}

{% macro duckdb__regexp_replace_all(expression, pattern, replacement) -%}
    regexp_replace({{ expression }}, '{{ pattern }}', '{{ replacement }}', 'gs')
{%- endmacro %}

{#
    A pattern as Java reads it like PostgreSQL: within brackets a bracket is a
    sign, a dot is any character, and the end is the end, not a line's.
#}
{% macro java_pattern(pattern) -%}
    {%- set written, class = ["(?s)"], {"begins": none} -%}
    {%- for sign in pattern -%}
        {%- if class.begins is none -%}
            {%- do class.update({"begins": loop.index0}) if sign == "[" -%}
            {%- do written.append("\\\\z" if sign == "$" else sign) -%}
        {%- else -%}
            {%- do written.append("\\\\[" if sign == "[" else sign) -%}
            {%- if sign == "]" and pattern[class.begins + 1:loop.index0] not in ("", "^") -%}
                {%- do class.update({"begins": none}) -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
    {{- return(written | join) -}}
{%- endmacro %}

{% macro spark__regexp_remove(expression, pattern) -%}
    {{ default__regexp_remove(expression, java_pattern(pattern)) }}
{%- endmacro %}

{% macro spark__regexp_first(expression, pattern) -%}
    nullif(regexp_extract({{ expression }}, '{{ java_pattern(pattern) }}', 0), '')
{%- endmacro %}

{% macro spark__regexp_replace_all(expression, pattern, replacement) -%}
    {{ default__regexp_replace_all(expression, java_pattern(pattern), replacement) }}
{%- endmacro %}
