{#
    Hooks before an incremental step: take out what the step puts back, or nothing
    does. A ref gets no alias of its own here or elsewhere: with --empty it is a
    subquery that has one.
#}

{# Rows of files that were replaced since; what else is known of these transactions comes back with the step. #}
{% macro delete_rows_of_replaced_files(only="1 = 1") -%}
    {%- if is_incremental() and files_were_replaced() -%}
        delete from {{ this }}
        where
            {{ only }}
            and exists (
                select 1
                from (
                    select * from {{ ref("int_transaction_files__replaced") }}
                ) as replaced
                where
                    replaced.file_checksum = {{ this }}.file_checksum
                    and replaced.loaded_at = {{ this }}.loaded_at
            )
    {%- endif -%}
{%- endmacro %}

{# Unread lines that have landed after all: mended, or read again by a load that has come since. #}
{% macro delete_lines_that_landed_since() -%}
    {%- if is_incremental() and lines_were_read_again() -%}
        delete from {{ this }}
        where
            rejection_stage = 'unread'
            and not exists (
                select 1
                from (
                    select * from {{ ref("int_transactions__unread") }}
                ) as unread
                where
                    unread.dlt_load_id = {{ this }}.dlt_load_id
                    and unread.file_checksum = {{ this }}.file_checksum
                    and unread.file_line = {{ this }}.file_line
            )
    {%- endif -%}
{%- endmacro %}

{# Rows of transactions of which a version stood in such a file. #}
{% macro delete_reopened_transactions() -%}
    {%- if is_incremental() and files_were_replaced() -%}
        delete from {{ this }}
        where
            transaction_id in (
                select transaction_id
                from {{ ref("int_transactions__reopened") }}
                where {{ is_new("replaced_at") }}
            )
    {%- endif -%}
{%- endmacro %}

{# Everything, when a file was replaced since: the step then reads everything too. #}
{% macro delete_all_when_files_were_replaced() -%}
    {%- if is_incremental() and files_were_replaced() -%}
        delete from {{ this }}
    {%- endif -%}
{%- endmacro %}

{# Whole days that the step recomputes. #}
{% macro delete_touched_days() -%}
    {%- if is_incremental() -%}
        delete from {{ this }}
        where date_day in {{ touched_days() }}
    {%- endif -%}
{%- endmacro %}

{#
    Everything, as the step puts all of it back: a table that is made anew in
    place, so that views which read it stay, and readers see the one or the other.
    With --empty the step would put nothing back, so nothing goes.
#}
{% macro delete_all_before_step() -%}
    {%- if is_incremental() and not flags.EMPTY -%}
        delete from {{ this }}
    {%- endif -%}
{%- endmacro %}

{#
    Whether this model is such a table, and stands there with the columns that it
    is to have: each step is a full refresh then. dbt's own drops the table, and
    with it all views that read it, those too that a run does not select.
#}
{% macro is_filled_anew_in_place() -%}
    {%- set hooks = model.config.get("pre-hook", []) | map(attribute="sql") | join -%}
    {%- if not execute or "delete_all_before_step" not in hooks -%}
        {{- return(false) -}}
    {%- endif -%}
    {%- if "filled_anew_in_place" not in context -%}
        {%- set standing = load_cached_relation(this) -%}
        {%- set stays = [] -%}
        {%- if standing is not none and standing.is_table -%}
            {%- set draft = make_intermediate_relation(this).incorporate(type="view") -%}
            {%- do drop_relation_if_exists(load_cached_relation(draft)) -%}
            {%- call statement("draft") -%}
                {{ get_create_view_as_sql(draft, model.compiled_code) }}
            {%- endcall -%}
            {%- if keeps_columns(standing, draft) and keeps_columns(draft, standing) -%}
                {%- do stays.append(this) -%}
            {%- endif -%}
            {%- do adapter.drop_relation(draft) -%}
        {%- endif -%}
        {%- do context.update({"filled_anew_in_place": stays != []}) -%}
    {%- endif -%}
    {{- return(context["filled_anew_in_place"]) -}}
{%- endmacro %}
