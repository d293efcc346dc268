{#
    A float as a decimal number, the same one on every engine: they differ in what a
    float is at its last digits, and half a cent is then rounded up or down. So four
    digits more are rounded first.
#}
{% macro rounded(expression, precision, scale) -%}
    cast(
        cast({{ expression }} as numeric({{ precision + 4 }}, {{ scale + 4 }}))
        as numeric({{ precision }}, {{ scale }})
    )
{%- endmacro %}
