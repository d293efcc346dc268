-- Grain: one row per line of a transaction file that is not in the facts: lines
-- that could not be read, and rows that break a business rule. Counts add up.
-- A line leaves when it has landed after all, corrected or read again.
{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        indexes=[{'columns': ['loaded_at']}],
        pre_hook=[
            "{{ delete_rows_of_replaced_files(
                ref('int_transaction_files__replaced'),
                only=\"rejection_stage = 'marked'\"
            ) }}",
            "{{ delete_lines_that_landed_since(
                ref('int_transactions__unread'),
                ref('stg_transactions__files'),
                ref('stg_transactions__loads')
            ) }}",
        ]
    )
}}

with checked as (
    select * from {{ ref('int_transactions__checked') }}
    where
        rejection_reason is not null
        and {{ is_new(only="rejection_stage = 'marked'") }}
),

rejects as (
    select * from {{ ref('int_transactions__unread') }}
    where {{ is_of_new_load(
        ref('stg_transactions__loads'), only="rejection_stage = 'unread'"
    ) }}
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
        cast(
            case
                when rejection_reason in ('negative_amount', 'absurd_amount')
                    then {{ dbt.concat([
                        "cast(amount as " ~ dbt.type_string() ~ ")",
                        "coalesce(" ~ dbt.concat(["' '", "currency_code"]) ~ ", '')",
                    ]) }}
                when rejection_reason = 'unknown_status'
                    then transaction_status
                when rejection_reason = 'unknown_currency' then currency_code
                else cast(event_at as {{ dbt.type_string() }})
            end as {{ dbt.type_string() }}
        ) as broken_value,
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
        cast(null as {{ dbt.type_string() }}) as broken_value,
        raw_text
    from rejects
),

final as (
    select * from marked
    union all
    select * from unread
)

select * from final
