-- Grain: one row per merchant and currency with at least one transaction.
-- Ranks are by total amount within a currency.
with transactions as (
    select * from {{ ref('fct_transactions') }}
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

statuses as (
    select * from {{ ref('dim_transaction_status') }}
),

summed as (
    select
        transactions.merchant_key,
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
    group by transactions.merchant_key, transactions.currency_code
),

final as (
    select
        summed.merchant_key,
        merchants.merchant_name,
        merchants.is_brand_affiliated,
        coalesce(summed.currency_code, 'Unknown') as currency_code,
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
