{#
    What an incremental step has to look at. Every model that is built a batch
    at a time has a column loaded_at, when a row's load finished, and its newest
    is how far the model has come. Answers are literals in the compiled step:
    a planner then knows that they are few, and reads few rows.
#}

{#
    The newest loaded_at of the model, as text; a moment before all others when
    it is empty. A model of rows from two places comes on in each by itself:
    `only` says which rows count.
#}
{% macro loaded_until(only="1 = 1") -%}
    {%- set newest = ask(
        "select cast(max(loaded_at) as " ~ dbt.type_string() ~ ") from " ~ this
        ~ " where " ~ only
    ) -%}
    {{- return(newest.columns[0].values()[0] or "1970-01-01 00:00:00") -}}
{%- endmacro %}

{# Condition: the row came with a load that finished after the model's newest one. #}
{% macro is_new(column="loaded_at", only="1 = 1") -%}
    {{ column }} > cast('{{ loaded_until(only) }}' as timestamp)
{%- endmacro %}

{# Ids of loads that finished after the model's newest one, as a list in SQL. #}
{% macro new_load_ids(only="1 = 1") -%}
    {%- set found = ask(
        "select dlt_load_id from " ~ ref("stg_transactions__loads")
        ~ " where is_finished and " ~ is_new("loaded_at", only)
    ) -%}
    {{- return(sql_list(found.columns[0].values())) -}}
{%- endmacro %}

{# Whether a file was replaced since, so that rows which are no longer landed stand in the model. #}
{% macro files_were_replaced() -%}
    {%- set found = ask(
        "select count(*) from " ~ ref("int_transaction_files__replaced")
        ~ " where " ~ is_new("replaced_at")
    ) -%}
    {{- return(found.columns[0].values()[0] | int > 0) -}}
{%- endmacro %}

{# Whether a load that is new may have read lines which an earlier one had put aside. #}
{% macro lines_were_read_again() -%}
    {%- set found = ask(
        "with files as (select * from " ~ ref("stg_transactions__files")
        ~ "), loads as (select * from " ~ ref("stg_transactions__loads")
        ~ ") select count(*) from files"
        ~ " inner join loads on files.dlt_load_id = loads.dlt_load_id"
        ~ " where loads.is_finished and " ~ is_new("loads.loaded_at")
        ~ " and (files.replayed_load_id is not null or files.is_replacement"
        ~ " or files.first_line_number > 1)"
    ) -%}
    {{- return(found.columns[0].values()[0] | int > 0) -}}
{%- endmacro %}

{# Query of the transactions with a new version, or with one in a file that was replaced since. #}
{% macro touched_transactions() -%}
    select transaction_id
    from {{ ref("int_transactions__checked") }}
    where {{ is_new() }}
    {%- if files_were_replaced() %}
    union all
    select transaction_id
    from {{ ref("int_transactions__reopened") }}
    where {{ is_new("replaced_at") }}
    {%- endif %}
{%- endmacro %}

{# Days that transactions entered or left since, as a list of dates in SQL. #}
{% macro touched_days() -%}
    {%- set found = ask(
        "select cast(event_day as " ~ dbt.type_string() ~ ") from "
        ~ ref("int_transaction_days__touched") ~ " where " ~ is_new()
    ) -%}
    {{- return(sql_list(found.columns[0].values(), "cast('{}' as date)")) -}}
{%- endmacro %}

{# Texts as a list in SQL, so that `in` is right for an empty one too. #}
{% macro sql_list(values, form="'{}'") -%}
    {%- set written = [] -%}
    {%- for value in values -%}
        {%- do written.append(form.replace("{}", value | string)) -%}
    {%- endfor -%}
    {{- return("(" ~ (written | join(", ") or "null") ~ ")") -}}
{%- endmacro %}

{# What a query finds. It may wait for a lock: not for longer than dbt is there. #}
{% macro ask(sql) -%}
    {%- do run_query(end_with_the_client()) -%}
    {{- return(run_query(sql)) -}}
{%- endmacro %}
