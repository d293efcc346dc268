{#
    Before an incremental step: take out of the fact the rows of files that
    were replaced since. What else is known of these transactions comes back
    with the step itself.
#}
{% macro delete_rows_of_replaced_files() -%}
    {%- if is_incremental() -%}
        delete from {{ this }}
        where
            exists (
                select 1
                from {{ ref("int_transaction_files__replaced") }} as replaced
                where
                    replaced.file_checksum = {{ this }}.file_checksum
                    and replaced.loaded_at = {{ this }}.loaded_at
            )
    {%- endif -%}
{%- endmacro %}
