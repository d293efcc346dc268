-- Grain: one row per day, merchant, category, city, status, amount bucket and
-- currency with at least one transaction. Counts add up over everything,
-- amounts within one currency. Merchants of no film brand carry the unknown
-- brand's name.

with transactions as (
    select * from {{ ref('fct_transactions') }}
    where {{ is_touched_day(
        'event_date', ref('int_transaction_days__touched')
    ) }}
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

brands as (
    select * from {{ ref('dim_brand') }}
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

-- aggregated before it is joined
daily as (
    select
        event_date,
        merchant_key,
        category_key,
        city_key,
        transaction_status_key,
        amount_bucket,
        currency_code,
        count(*) as transaction_count,
        sum(amount) as amount,
        sum(approved_amount) as approved_amount,
        max(loaded_at) as loaded_at
    from transactions
    group by
        event_date,
        merchant_key,
        category_key,
        city_key,
        transaction_status_key,
        amount_bucket,
        currency_code
),

final as (
    select
        daily.event_date as date_day,
        merchants.merchant_key,
        merchants.merchant_name,
        brands.brand_name,
        merchants.is_brand_affiliated,
        categories.category_name,
        cities.city_name,
        statuses.transaction_status,
        daily.amount_bucket,
        daily.transaction_count,
        cast(daily.amount as numeric(20, 4)) as amount,
        daily.loaded_at,
        cast(daily.approved_amount as numeric(20, 4)) as approved_amount,
        {{ name_or_unknown('daily.currency_code') }} as currency_code,
        case
            when statuses.is_approved then daily.transaction_count else 0
        end as approved_count
    from daily
    inner join merchants on daily.merchant_key = merchants.merchant_key
    inner join brands on merchants.brand_key = brands.brand_key
    inner join categories on daily.category_key = categories.category_key
    inner join cities on daily.city_key = cities.city_key
    inner join statuses
        on daily.transaction_status_key = statuses.transaction_status_key
)

select * from final
