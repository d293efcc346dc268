-- Grain: one row per day, city, category and currency with at least one
-- transaction. Counts add up over everything, amounts within one currency.
with transactions as (
    select * from {{ ref('fct_transactions') }}
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
        transactions.date_key,
        transactions.event_date,
        transactions.city_key,
        transactions.category_key,
        transactions.currency_code,
        count(*) as transaction_count,
        count(case when statuses.is_approved then 1 end) as approved_count,
        sum(transactions.amount) as total_amount,
        sum(transactions.approved_amount) as approved_amount
    from transactions
    inner join statuses
        on
            transactions.transaction_status_key
            = statuses.transaction_status_key
    group by
        transactions.date_key,
        transactions.event_date,
        transactions.city_key,
        transactions.category_key,
        transactions.currency_code
),

final as (
    select
        daily.date_key,
        daily.event_date,
        daily.city_key,
        daily.category_key,
        cities.city_name,
        categories.category_name,
        daily.currency_code,
        daily.transaction_count,
        daily.approved_count,
        cast(daily.total_amount as numeric(20, 4)) as total_amount,
        cast(daily.approved_amount as numeric(20, 4)) as approved_amount
    from daily
    inner join cities on daily.city_key = cities.city_key
    inner join categories on daily.category_key = categories.category_key
)

select * from final
