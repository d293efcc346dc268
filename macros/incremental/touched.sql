{#
    What an incremental step has to look at. Every model that is built a batch
    at a time has a column loaded_at, when a row's load finished, and its newest
    is how far the model has come. A model hands over the relations that a macro
    asks, so that dbt sees them in the model. Conditions are true for every row
    in a full build. Answers are literals in the compiled step: a planner then
    knows that they are few, and reads few rows. One run is drawn in
    models/intermediate/transactions/README.md.
#}

{#
    The newest loaded_at of the model, as text; a moment before all others when
    it is empty. A model that unions two inputs keeps their progress apart:
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
    {%- if is_incremental() -%}
        {{ column }} > cast('{{ loaded_until(only) }}' as timestamp)
    {%- else -%}
        1 = 1
    {%- endif -%}
{%- endmacro %}

{# Condition: the same by the id of the row's load, for rows that do not know when it finished. #}
{% macro is_of_new_load(loads, only="1 = 1") -%}
    {%- if is_incremental() -%}
        {%- set found = ask(
            "select dlt_load_id from " ~ loads
            ~ " where is_finished and " ~ is_new("loaded_at", only)
        ) -%}
        dlt_load_id in {{ sql_list(found.columns[0].values()) }}
    {%- else -%}
        1 = 1
    {%- endif -%}
{%- endmacro %}

{#
    Condition on rows of a raw table: a model that keeps them has none of their load.
    Distinct on both sides: Spark joins all rows for the difference of others.
#}
{% macro is_of_load_not_there(raw) -%}
    {%- if is_incremental() -%}
        {%- set found = ask(
            "select distinct _dlt_load_id from " ~ raw
            ~ " except select distinct dlt_load_id from " ~ this
        ) -%}
        _dlt_load_id in {{ sql_list(found.columns[0].values()) }}
    {%- else -%}
        1 = 1
    {%- endif -%}
{%- endmacro %}

{# Whether a file was replaced since, so that the model has rows of it which no longer count. #}
{% macro files_were_replaced(replaced_files) -%}
    {%- set found = ask(
        "select count(*) from " ~ replaced_files ~ " where " ~ is_new("replaced_at")
    ) -%}
    {{- return(found.columns[0].values()[0] | int > 0) -}}
{%- endmacro %}

{# Whether a load that is new may have read lines which an earlier one had put aside. #}
{% macro lines_were_read_again(files, loads) -%}
    {%- set found = ask(
        "with files as (select * from " ~ files
        ~ "), loads as (select * from " ~ loads
        ~ ") select count(*) from files"
        ~ " inner join loads on files.dlt_load_id = loads.dlt_load_id"
        ~ " where loads.is_finished and " ~ is_new("loads.loaded_at")
        ~ " and (files.replayed_load_id is not null or files.is_replacement"
        ~ " or files.first_line_number > 1)"
    ) -%}
    {{- return(found.columns[0].values()[0] | int > 0) -}}
{%- endmacro %}

{# Condition on a file or transaction: it was replaced, or reopened, since. #}
{% macro is_newly_replaced(replaced_files) -%}
    {%- if is_incremental() and not files_were_replaced(replaced_files) -%}
        1 = 0
    {%- else -%}
        {{ is_new("replaced_at") }}
    {%- endif -%}
{%- endmacro %}

{# Condition: the row is new, or its transaction was reopened. #}
{% macro is_new_or_reopened(reopened, replaced_files) -%}
    {{ is_new() }}
    {%- if is_incremental() and files_were_replaced(replaced_files) %}
        or transaction_id in (
            select transaction_id
            from {{ reopened }}
            where {{ is_new("replaced_at") }}
        )
    {%- endif -%}
{%- endmacro %}

{# Condition: the row is new, or the hook delete_all_when_files_were_replaced empties the model. #}
{% macro is_new_or_all_are(replaced_files) -%}
    {%- if is_incremental() and files_were_replaced(replaced_files) -%}
        1 = 1
    {%- else -%}
        {{ is_new() }}
    {%- endif -%}
{%- endmacro %}

{# Condition: the transaction has a new version, or had one in a file that was replaced since. #}
{% macro is_touched(versions, reopened, replaced_files) -%}
    {%- if is_incremental() -%}
        transaction_id in (
            select transaction_id
            from {{ versions }}
            where rejection_reason is null and {{ is_new() }}
            {%- if files_were_replaced(replaced_files) %}
            union all
            select transaction_id
            from {{ reopened }}
            where {{ is_new("replaced_at") }}
            {%- endif %}
        )
    {%- else -%}
        1 = 1
    {%- endif -%}
{%- endmacro %}

{# Condition: transactions entered or left the day since. #}
{% macro is_touched_day(column, touched_days) -%}
    {%- if is_incremental() -%}
        {%- set found = ask(
            "select cast(event_date as " ~ dbt.type_string() ~ ") from "
            ~ touched_days ~ " where " ~ is_new()
        ) -%}
        {{ column }} in {{ sql_list(found.columns[0].values(), "cast('{}' as date)") }}
    {%- else -%}
        1 = 1
    {%- endif -%}
{%- endmacro %}

{#
    Condition on the date of a row that is_touched or a transaction's key chooses: it
    is one of the touched days, for every version of a touched transaction lies on
    one. It changes no result. Spark has no index, and by it reads a few months in
    place of all. Without touched_days, and as long as that has not seen what the
    model is to read (a run may build one and not the other), it leaves out nothing.
#}
{% macro is_on_touched_days(column, touched_days, versions, replaced_files) -%}
    {%- if is_incremental() and touched_days
        and has_come_as_far(touched_days, versions, replaced_files) -%}
        {%- set found = ask(
            "select cast(min(event_date) as " ~ dbt.type_string() ~ "), cast("
            ~ dbt.dateadd("day", 1, "max(event_date)") ~ " as date) from ("
            ~ "select event_date, " ~ dbt.datediff("cast('1970-01-01' as date)", "event_date", "day")
            ~ " - row_number() over (order by event_date) as run from " ~ touched_days
            ~ " where " ~ is_new() ~ ") as days group by run order by 1"
        ) -%}
        {%- set spans = [] -%}
        {%- for first, after in found.rows -%}
            {%- do spans.append(
                column ~ " >= cast('" ~ first ~ "' as date) and "
                ~ column ~ " < cast('" ~ after ~ "' as date)"
            ) -%}
        {%- endfor -%}
        ({{ spans | join(" or ") or "1 = 0" }})
    {%- else -%}
        1 = 1
    {%- endif -%}
{%- endmacro %}

{# Whether touched_days has seen the newest versions and replaced files. #}
{% macro has_come_as_far(touched_days, versions, replaced_files) -%}
    {%- set newest = ask(
        "select cast(max(loaded_at) as " ~ dbt.type_string() ~ ") from " ~ touched_days
    ).columns[0].values()[0] or "1970-01-01 00:00:00" -%}
    {%- set later = ask(
        "select count(*) from (select loaded_at from " ~ versions
        ~ " where loaded_at > cast('" ~ newest ~ "' as timestamp)"
        ~ " union all select replaced_at from " ~ replaced_files
        ~ " where replaced_at > cast('" ~ newest ~ "' as timestamp)) as later"
    ) -%}
    {{- return(later.columns[0].values()[0] | int == 0) -}}
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
    {%- set guard = end_with_the_client() | trim -%}
    {%- do run_query(guard) if guard -%}
    {{- return(run_query(sql)) -}}
{%- endmacro %}
