{#
    Key of a text: dbt_utils.generate_surrogate_key, with one exception. The very
    text that it writes for null, and what begins with it, gets a sign more, or
    such a text would have the key of the unknown member.
#}
{% macro text_key(expression) -%}
    {{ dbt_utils.generate_surrogate_key([
        "case when " ~ expression ~ " like '_dbt_utils_surrogate_key_null_%' then "
        ~ dbt.concat([expression, "'_'"]) ~ " else " ~ expression ~ " end"
    ]) }}
{%- endmacro %}
