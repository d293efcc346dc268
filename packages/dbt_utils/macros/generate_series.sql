{# A query of the integers 1 to upper_bound in a column generated_number. #}
{% macro generate_series(upper_bound) -%}
    {{ return(adapter.dispatch("generate_series", "dbt_utils")(upper_bound)) }}
{%- endmacro %}

{% macro default__generate_series(upper_bound) -%}
    {#- each bit doubles the rows: as many bits as upper_bound needs -#}
    {%- set bits = [0] -%}
    {%- for bit in range(1, 63) if 2 ** bit < upper_bound -%}
        {%- do bits.append(bit) -%}
    {%- endfor -%}
    with bit as (
        select 0 as is_set union all select 1
    ),

    numbers as (
        select
            {% for bit in bits -%}
            bit_{{ bit }}.is_set * {{ 2 ** bit }}{{ " + " if not loop.last }}
            {%- endfor %}
            + 1 as generated_number
        from bit as bit_0
        {% for bit in bits[1:] -%}
        cross join bit as bit_{{ bit }}
        {% endfor %}
    )

    select generated_number
    from numbers
    where generated_number <= {{ upper_bound }}
{%- endmacro %}
