-- Grain: one row per line of a transaction file that is not in the facts: lines
-- that could not be read, and rows that break a business rule. Counts add up.
-- A line leaves when it has landed after all, mended or read again.
{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        indexes=[{'columns': ['loaded_at']}],
        pre_hook=[
            "{{ delete_rows_of_replaced_files(
                only=\"rejection_stage = 'marked'\"
            ) }}",
            "{{ delete_lines_that_landed_since() }}",
        ]
    )
}}
-- depends_on: {{ ref('int_transaction_files__replaced') }}
-- depends_on: {{ ref('stg_transactions__files') }}
-- depends_on: {{ ref('stg_transactions__loads') }}

with checked as (
    select * from {{ ref('int_transactions__checked') }}
    where rejection_reason is not null
    {% if is_incremental() %}
        and {{ is_new(only="rejection_stage = 'marked'") }}
    {% endif %}
),

rejects as (
    select * from {{ ref('int_transactions__unread') }}
    {% if is_incremental() %}
    where
        dlt_load_id
        in {{ new_load_ids(only="rejection_stage = 'unread'") }}
    {% endif %}
),

marked as (
    select
        'marked' as rejection_stage,
        rejection_reason as reason_code,
        file_name,
        file_line,
        file_checksum,
        dlt_load_id,
        loaded_at,
        transaction_id,
        case
            when
                event_at >= cast('0001-01-01' as date)
                and event_at < cast('9999-12-31' as date)
                then event_at
        end as event_at,
        amount,
        currency_code,
        cast(null as {{ dbt.type_string() }}) as raw_text
    from checked
),

unread as (
    select
        'unread' as rejection_stage,
        reason_code,
        file_name,
        file_line,
        file_checksum,
        dlt_load_id,
        loaded_at,
        cast(null as {{ dbt.type_string() }}) as transaction_id,
        cast(null as timestamp) as event_at,
        cast(null as numeric(18, 4)) as amount,
        cast(null as {{ dbt.type_string() }}) as currency_code,
        raw_text
    from rejects
),

final as (
    select * from marked
    union all
    select * from unread
)

select * from final
