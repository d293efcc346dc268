{#
    A query of the numbers 1 to upper_bound in a column generated_number, in
    their order. They are floats, as power() gives them: whoever counts days
    with them has to cast.
#}
{% macro generate_series(upper_bound) -%}
    {{ return(adapter.dispatch("generate_series", "dbt_utils")(upper_bound)) }}
{%- endmacro %}

{% macro default__generate_series(upper_bound) -%}
    {%- if upper_bound <= 0 -%}
        {{ exceptions.raise_compiler_error(
            "generate_series counts from 1: its upper bound cannot be "
            ~ upper_bound ~ "."
        ) }}
    {%- endif -%}
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
            1
            {%- for bit in bits %}
            + power(2, {{ bit }}) * bit_{{ bit }}.is_set
            {%- endfor %} as generated_number
        from bit as bit_0
        {% for bit in bits[1:] -%}
        cross join bit as bit_{{ bit }}
        {% endfor %}
    )

    select generated_number
    from numbers
    where generated_number <= {{ upper_bound }}
    order by 1
{%- endmacro %}
