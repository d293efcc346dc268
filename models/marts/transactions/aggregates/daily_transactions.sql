-- Grain: one row per day, city, category, status, payment method, amount bucket
-- and currency with at least one transaction. Counts add up over everything,
-- amounts within one currency.

with transactions as (
    select * from {{ ref('fct_transactions') }}
    where {{ is_touched_day(
        'event_date', ref('int_transaction_days__touched')
    ) }}
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

-- aggregated before it is joined
daily as (
    select
        event_date,
        city_key,
        category_key,
        transaction_status_key,
        payment_method_key,
        amount_bucket,
        currency_code,
        count(*) as transaction_count,
        sum(amount) as amount,
        sum(approved_amount) as approved_amount,
        max(loaded_at) as loaded_at
    from transactions
    group by
        event_date,
        city_key,
        category_key,
        transaction_status_key,
        payment_method_key,
        amount_bucket,
        currency_code
),

final as (
    select
        daily.event_date as date_day,
        cast({{ iso_day_of_week('daily.event_date') }} as integer)
            as iso_day_of_week,
        {{ weekday_name('daily.event_date') }} as weekday_name,
        cities.city_name,
        categories.category_name,
        statuses.transaction_status,
        payment_methods.payment_method,
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
    inner join cities on daily.city_key = cities.city_key
    inner join categories on daily.category_key = categories.category_key
    inner join statuses
        on daily.transaction_status_key = statuses.transaction_status_key
    inner join payment_methods
        on daily.payment_method_key = payment_methods.payment_method_key
)

select * from final
