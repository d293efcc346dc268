{#
    Types that contracts, seeds and sources name have PostgreSQL's names. dbt makes
    every column of a contract and every value of a unit test by `cast`, so that an
    engine which calls a type otherwise says so here, once.
#}
{% macro type_name(data_type) -%}
    {{ return(adapter.dispatch("type_name")(data_type)) }}
{%- endmacro %}

{% macro default__type_name(data_type) -%}
    {{- return(data_type) -}}
{%- endmacro %}

{% macro spark__type_name(data_type) -%}
    {{- return({
        "text": "string",
        "double precision": "double",
        "timestamp with time zone": "timestamp",
        "timestamp without time zone": "timestamp",
    }.get(data_type, data_type)) -}}
{%- endmacro %}

{% macro spark__cast(field, type) -%}
    cast({{ field }} as {{ type_name(type) }})
{%- endmacro %}
