{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        indexes=[
            {'columns': ['transaction_id']},
            {'columns': ['loaded_at']},
        ],
        pre_hook="{{ delete_rows_of_replaced_files(
            ref('int_transaction_files__replaced')
        ) }}",
        post_hook="{{ renew_statistics('loaded_at') }}"
    )
}}
{%- set earliest = earliest_date(var('transactions_earliest_date')) %}

with transactions as (
    select * from {{ ref('stg_transactions__transactions') }}
    where {{ is_of_new_load(ref('stg_transactions__loads')) }}
),

-- a load that has not finished is not there yet
loads as (
    select * from {{ ref('stg_transactions__loads') }}
    where is_finished
),

replaced_files as (
    select * from {{ ref('int_transaction_files__replaced') }}
),

-- seeds are read as transactions are, however they are spelled
currencies as (
    select
        {{ normalize_text('currency_code', 'upper') }} as currency_code,
        largest_amount
    from {{ ref('currencies') }}
),

statuses as (
    select
        {{ normalize_text('transaction_status', 'upper') }}
            as transaction_status
    from {{ ref('transaction_statuses') }}
),

checked as (
    select
        transactions.transaction_id,
        transactions.user_id,
        transactions.dlt_load_id,
        transactions.file_checksum,
        transactions.file_line,
        transactions.merchant_name,
        transactions.category_name,
        transactions.city_name,
        transactions.transaction_status,
        transactions.payment_method,
        transactions.currency_code,
        transactions.file_name,
        transactions.extra_fields,
        transactions.amount,
        transactions.event_at,
        loads.loaded_at,
        case
            when transactions.amount < 0 then 'negative_amount'
            when
                transactions.amount > coalesce(
                    currencies.largest_amount,
                    {{ var('transactions_max_amount') }}
                )
                then 'absurd_amount'
            when
                transactions.transaction_status is not null
                and statuses.transaction_status is null
                then 'unknown_status'
            when
                transactions.currency_code is not null
                and currencies.currency_code is null
                then 'unknown_currency'
            when
                transactions.event_at < cast(
                    '{{ earliest }}' as date
                )
                then 'ancient_timestamp'
            when
                transactions.event_at >= cast(
                    '{{ calendar_end() }}' as date
                )
                or transactions.event_at > {{ dbt.dateadd(
                    'hour',
                    var('transactions_future_tolerance_hours'),
                    'loads.loaded_at'
                ) }}
                then 'future_timestamp'
        end as rejection_reason
    from transactions
    inner join loads on transactions.dlt_load_id = loads.dlt_load_id
    left join replaced_files
        on
            transactions.dlt_load_id = replaced_files.dlt_load_id
            and transactions.file_checksum = replaced_files.file_checksum
    left join currencies
        on transactions.currency_code = currencies.currency_code
    left join statuses
        on transactions.transaction_status = statuses.transaction_status
    where replaced_files.dlt_load_id is null
)

select * from checked
