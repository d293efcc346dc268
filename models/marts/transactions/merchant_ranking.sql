-- Grain: one row per merchant and currency with at least one transaction.
-- Ranks are by total amount within a currency.
with daily as (
    select * from {{ ref('daily_merchants') }}
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

summed as (
    select
        merchant_key,
        currency_code,
        cast(sum(transaction_count) as bigint) as transaction_count,
        cast(sum(approved_count) as bigint) as approved_count,
        sum(amount) as total_amount,
        sum(approved_amount) as approved_amount
    from daily
    group by merchant_key, currency_code
),

final as (
    select
        merchants.merchant_key,
        merchants.merchant_name,
        merchants.is_brand_affiliated,
        summed.currency_code,
        cast(
            rank() over (
                partition by summed.currency_code
                order by summed.total_amount desc
            ) as integer
        ) as amount_rank,
        summed.transaction_count,
        summed.approved_count,
        cast(
            {{ dbt_utils.safe_divide(
                'cast(summed.approved_count as numeric(18, 6))',
                'summed.transaction_count'
            ) }} as numeric(7, 6)
        ) as approval_rate,
        cast(summed.total_amount as numeric(20, 4)) as total_amount,
        cast(summed.approved_amount as numeric(20, 4)) as approved_amount
    from summed
    inner join merchants on summed.merchant_key = merchants.merchant_key
)

select * from final
