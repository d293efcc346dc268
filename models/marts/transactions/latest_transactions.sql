-- Grain: one row per transaction_id, of the latest ones only: as many as the
-- variable latest_transactions says. Names instead of keys, and no nulls where
-- an aggregate has none, so that one filter reaches all of them. Amounts add up
-- within one currency, but over the latest transactions only.
{{ config(indexes=[{'columns': ['event_at']}]) }}

with transactions as (
    select * from {{ ref('fct_transactions') }}
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

cities as (
    select * from {{ ref('dim_city') }}
),

categories as (
    select * from {{ ref('dim_category') }}
),

statuses as (
    select * from {{ ref('dim_transaction_status') }}
),

payment_methods as (
    select * from {{ ref('dim_payment_method') }}
),

-- by day first: the fact has an index on it, which ends the search early; or
-- months that are too old are left out
latest as (
    select * from transactions
    where {{ is_late_enough(
        'event_date', ref('fct_transactions'), var('latest_transactions')
    ) }}
    order by event_date desc, event_at desc, transaction_id desc
    limit {{ var('latest_transactions') }}
),

final as (
    select
        latest.transaction_id,
        latest.user_id,
        merchants.merchant_name,
        categories.category_name,
        cities.city_name,
        statuses.transaction_status,
        payment_methods.payment_method,
        latest.amount_bucket,
        latest.amount as transaction_amount,
        statuses.is_approved,
        latest.event_date as date_day,
        latest.event_at,
        latest.loaded_at,
        {{ name_or_unknown('latest.currency_code') }} as currency_code
    from latest
    inner join merchants on latest.merchant_key = merchants.merchant_key
    inner join categories on latest.category_key = categories.category_key
    inner join cities on latest.city_key = cities.city_key
    inner join statuses
        on latest.transaction_status_key = statuses.transaction_status_key
    inner join payment_methods
        on latest.payment_method_key = payment_methods.payment_method_key
)

select * from final
