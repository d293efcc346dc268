-- Grain: one row per transaction_id, in its latest version (latest event_at;
-- among versions of one moment the one that landed last).
-- amount and approved_amount add up over every dimension, within one currency.
{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='transaction_id',
        on_schema_change='fail',
        indexes=[
            {'columns': ['loaded_at']},
            {'columns': ['event_date']},
        ],
        pre_hook='{{ delete_rows_of_replaced_files() }}'
    )
}}
-- depends_on: {{ ref('int_transaction_files__replaced') }}
-- depends_on: {{ ref('int_transactions__reopened') }}

-- by the time a load finished, so that one that finishes late is not missed
with transactions as (
    select * from {{ ref('int_transactions__bucketed') }}
    {% if is_incremental() %}
    where
        {{ is_new() }}
        {% if files_were_replaced() -%}
        or transaction_id in (
            select transaction_id
            from {{ ref('int_transactions__reopened') }}
            where {{ is_new('replaced_at') }}
        )
        {% endif %}
    {% endif %}
),

statuses as (
    select * from {{ ref('transaction_statuses') }}
),

arrived as (
    select
        transactions.transaction_id,
        {{ date_key('transactions.event_at') }} as date_key,
        {{ text_key('transactions.merchant_name') }}
            as merchant_key,
        {{ text_key('transactions.category_name') }}
            as category_key,
        {{ text_key('transactions.city_name') }}
            as city_key,
        {{ text_key('transactions.payment_method') }}
            as payment_method_key,
        {{ text_key('transactions.transaction_status') }}
            as transaction_status_key,
        transactions.user_id,
        transactions.amount_bucket,
        transactions.currency_code,
        transactions.amount,
        cast(
            case
                when statuses.is_approved then transactions.amount else 0
            end as numeric(18, 4)
        ) as approved_amount,
        cast(transactions.event_at as date) as event_date,
        transactions.event_at,
        transactions.loaded_at,
        transactions.file_checksum,
        transactions.file_line
    from transactions
    left join statuses
        on transactions.transaction_status = statuses.transaction_status
),

versions as (
    select
        transaction_id,
        date_key,
        merchant_key,
        category_key,
        city_key,
        payment_method_key,
        transaction_status_key,
        user_id,
        amount_bucket,
        currency_code,
        amount,
        approved_amount,
        event_date,
        event_at,
        loaded_at,
        file_checksum,
        file_line
    from arrived
    {% if is_incremental() %}
    union all
    -- what stands there is a version like any other: a late arrival that is
    -- older loses against it
    select
        standing.transaction_id,
        standing.date_key,
        standing.merchant_key,
        standing.category_key,
        standing.city_key,
        standing.payment_method_key,
        standing.transaction_status_key,
        standing.user_id,
        standing.amount_bucket,
        standing.currency_code,
        standing.amount,
        standing.approved_amount,
        standing.event_date,
        standing.event_at,
        standing.loaded_at,
        standing.file_checksum,
        standing.file_line
    from {{ this }} as standing
    where
        standing.transaction_id in (
            select arrived.transaction_id from arrived
        )
    {% endif %}
),

ranked as (
    select
        *,
        row_number() over (
            partition by transaction_id
            order by
                event_at desc,
                loaded_at desc,
                file_checksum desc,
                file_line desc
        ) as version_recency
    from versions
),

final as (
    select
        transaction_id,
        date_key,
        merchant_key,
        category_key,
        city_key,
        payment_method_key,
        transaction_status_key,
        user_id,
        amount_bucket,
        currency_code,
        amount,
        approved_amount,
        event_date,
        event_at,
        loaded_at,
        file_checksum,
        file_line
    from ranked
    where version_recency = 1
)

select * from final
{% if not is_incremental() %}
-- a day's rows lie together, so that a day is few pages
order by event_date
{% endif %}
