{#
    Hooks before an incremental step: delete rows that the step rebuilds, or that
    no longer count. A relation gets no alias of its own here or elsewhere: with
    --empty it is a subquery that has one. A step that dies after its hook, on an
    engine where they are not one transaction, is repeated by the next: what was
    deleted can only lower the model's newest loaded_at.
#}

{# Rows of files that were replaced since; the step adds what else is known of their transactions. #}
{% macro delete_rows_of_replaced_files(replaced_files, only="1 = 1") -%}
    {%- if is_incremental() and files_were_replaced(replaced_files) -%}
        delete from {{ this }}
        where
            {{ only }}
            and exists (
                select 1
                from (select * from {{ replaced_files }}) as replaced
                where
                    replaced.file_checksum = {{ this }}.file_checksum
                    and replaced.loaded_at = {{ this }}.loaded_at
            )
    {%- endif -%}
{%- endmacro %}

{# Unread lines that have landed after all: corrected, or read again by a load that has come since. #}
{% macro delete_lines_that_landed_since(unread, files, loads) -%}
    {%- if is_incremental() and lines_were_read_again(files, loads) -%}
        delete from {{ this }}
        where
            rejection_stage = 'unread'
            and not exists (
                select 1
                from (select * from {{ unread }}) as unread
                where
                    unread.dlt_load_id = {{ this }}.dlt_load_id
                    and unread.file_checksum = {{ this }}.file_checksum
                    and unread.file_line = {{ this }}.file_line
            )
    {%- endif -%}
{%- endmacro %}

{# All rows of the transactions that the step looks at; the column says their day. #}
{% macro delete_touched_transactions(versions, reopened, replaced_files, touched_days, column) -%}
    {%- if is_incremental() -%}
        delete from {{ this }}
        where
            {{ is_touched(versions, reopened, replaced_files) }}
            and {{ is_on_touched_days(column, touched_days, versions, replaced_files) }}
    {%- endif -%}
{%- endmacro %}

{# Everything, when a file was replaced since: the step then reads everything too. #}
{% macro delete_all_when_files_were_replaced(replaced_files) -%}
    {%- if is_incremental() and files_were_replaced(replaced_files) -%}
        delete from {{ this }}
    {%- endif -%}
{%- endmacro %}

{# Whole days that the step recomputes. #}
{% macro delete_touched_days(touched_days) -%}
    {%- if is_incremental() -%}
        delete from {{ this }}
        where {{ is_touched_day("date_day", touched_days) }}
    {%- endif -%}
{%- endmacro %}
