-- Grain: one row per hour (UTC), city, category, status, amount bucket and
-- currency with at least one transaction. Counts add up over everything,
-- amounts within one currency.
{{
    config(
        indexes=[
            {'columns': ['date_day']},
            {'columns': ['event_hour']},
            {'columns': ['loaded_at']},
        ]
    )
}}

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

timed as (
    select
        {{ dbt.date_trunc('hour', 'event_at') }} as event_hour,
        city_key,
        category_key,
        transaction_status_key,
        amount_bucket,
        currency_code,
        amount,
        approved_amount,
        loaded_at
    from transactions
),

-- aggregated before it is joined
hourly as (
    select
        event_hour,
        city_key,
        category_key,
        transaction_status_key,
        amount_bucket,
        currency_code,
        count(*) as transaction_count,
        sum(amount) as amount,
        sum(approved_amount) as approved_amount,
        max(loaded_at) as loaded_at
    from timed
    group by
        event_hour,
        city_key,
        category_key,
        transaction_status_key,
        amount_bucket,
        currency_code
),

final as (
    select
        cities.city_name,
        categories.category_name,
        statuses.transaction_status,
        hourly.amount_bucket,
        hourly.transaction_count,
        cast(hourly.event_hour as timestamp) as event_hour,
        cast(hourly.event_hour as date) as date_day,
        cast(extract(hour from hourly.event_hour) as integer) as hour_of_day,
        cast(hourly.amount as numeric(20, 4)) as amount,
        hourly.loaded_at,
        cast(hourly.approved_amount as numeric(20, 4)) as approved_amount,
        {{ name_or_unknown('hourly.currency_code') }} as currency_code,
        case
            when statuses.is_approved then hourly.transaction_count else 0
        end as approved_count
    from hourly
    inner join cities on hourly.city_key = cities.city_key
    inner join categories on hourly.category_key = categories.category_key
    inner join statuses
        on hourly.transaction_status_key = statuses.transaction_status_key
)

select * from final
