{#
    Conditions that change no result, and spare an engine without indexes (Spark) a
    reading of the whole table. They are true for every row elsewhere.
#}

{# Condition: the column's value is one of a few that the CTE has. #}
{% macro is_one_of_few(column, cte) -%}
    {{- return(adapter.dispatch("is_one_of_few")(column, cte)) -}}
{%- endmacro %}

{% macro default__is_one_of_few(column, cte) -%} 1 = 1 {%- endmacro %}

{# The hint says that they are few: the large table stays where it is, and is not read when there are none. #}
{% macro spark__is_one_of_few(column, cte) -%}
    {{ column }} in (
        select /*+ broadcast({{ cte }}) */ {{ cte }}.{{ column }} from {{ cte }}
    )
{%- endmacro %}

{# Condition: the day may have rows that are among so many of the latest days. #}
{% macro is_late_enough(column, relation, row_count) -%}
    {{- return(adapter.dispatch("is_late_enough")(column, relation, row_count)) -}}
{%- endmacro %}

{% macro default__is_late_enough(column, relation, row_count) -%} 1 = 1 {%- endmacro %}

{# The first day is a literal, so that files of earlier ones are left out. #}
{% macro spark__is_late_enough(column, relation, row_count) -%}
    {%- set first = none -%}
    {%- if execute and relation.schema and load_relation(relation) -%}
        {%- set first = ask(
            "select cast(min(" ~ column ~ ") as string) from (select " ~ column
            ~ ", sum(count(*)) over (order by " ~ column ~ " desc) - count(*) as later from "
            ~ relation ~ " group by " ~ column ~ ") as days where later < " ~ row_count
        ).columns[0].values()[0] -%}
    {%- endif -%}
    {{ column ~ " >= cast('" ~ first ~ "' as date)" if first else "1 = 1" }}
{%- endmacro %}

{# When the newest load in a table finished; a moment before all others when it is empty. #}
{% macro newest_load(relation) -%}
    {{- return(adapter.dispatch("newest_load")(relation)) -}}
{%- endmacro %}

{% macro default__newest_load(relation) -%}
    (
        select
            coalesce(
                max(newest.loaded_at), cast('1970-01-01 00:00:00' as timestamp)
            )
        from (select * from {{ relation }}) as newest
    )
{%- endmacro %}

{#
    A literal in the view too, as of the build that makes it: nothing lands between
    builds. A later build that dies before it makes the view anew adds rows that are
    newer, and these are seen.
#}
{% macro spark__newest_load(relation) -%}
    {%- if execute and relation.schema and load_relation(relation) -%}
        {%- set newest = ask(
            "select cast(max(loaded_at) as string) from " ~ relation
        ).columns[0].values()[0] -%}
        cast('{{ newest or "1970-01-01 00:00:00" }}' as timestamp)
    {%- else -%}
        {{- default__newest_load(relation) -}}
    {%- endif -%}
{%- endmacro %}
