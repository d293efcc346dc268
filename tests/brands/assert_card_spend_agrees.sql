-- Card spend at merchants of a brand is the same by day and by brand.
with by_day as (
    select
        brand_name,
        sum(transaction_count) as transaction_count,
        sum(approved_amount) as approved_amount
    from {{ ref('daily_merchants') }}
    where is_brand_affiliated
    group by brand_name
),

by_brand as (
    select * from {{ ref('brand_performance') }}
    where card_transaction_count > 0
)

select
    by_day.transaction_count,
    by_brand.card_transaction_count,
    by_day.approved_amount,
    by_brand.card_approved_amount,
    coalesce(by_day.brand_name, by_brand.brand_name) as brand_name
from by_day
full outer join by_brand on by_day.brand_name = by_brand.brand_name
where
    by_day.brand_name is null
    or by_brand.brand_name is null
    or by_day.transaction_count != by_brand.card_transaction_count
    or by_day.approved_amount != by_brand.card_approved_amount
