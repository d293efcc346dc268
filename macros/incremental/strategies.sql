{#
    How an engine writes what a step replaces. Which model uses which, and why,
    is in models/intermediate/transactions/README.md.
#}

{# Rows of the same unique_key are replaced; a key has one row. #}
{% macro replace_keys() -%}
    {{- return(adapter.dispatch("replace_keys")()) -}}
{%- endmacro %}

{% macro default__replace_keys() -%}
    {{- return("delete+insert") -}}
{%- endmacro %}

{% macro spark__replace_keys() -%}
    {{- return("merge") -}}
{%- endmacro %}

{# The whole table is replaced, without being dropped: see delete_all_before_step. #}
{% macro replace_all() -%}
    {{- return(adapter.dispatch("replace_all")()) -}}
{%- endmacro %}

{% macro default__replace_all() -%}
    {{- return("append") -}}
{%- endmacro %}

{% macro spark__replace_all() -%}
    {{- return("insert_overwrite") -}}
{%- endmacro %}
