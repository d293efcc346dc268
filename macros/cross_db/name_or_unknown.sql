{# What the unknown member of a dimension is called. #}
{% macro unknown_name() -%}
    (unknown)
{%- endmacro %}

{#
    The text itself; where it is null, the name of the unknown member. No text
    can pass for that: one that is called so gets an asterisk, one with an
    asterisk gets two, and so on, so that two texts never have one name.
#}
{% macro name_or_unknown(expression) -%}
    case
        when {{ expression }} is null then '{{ unknown_name() }}'
        when replace({{ expression }}, '*', '') = '{{ unknown_name() }}'
            then {{ dbt.concat([expression, "'*'"]) }}
        else {{ expression }}
    end
{%- endmacro %}
