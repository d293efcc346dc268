{{ config(materialized='table') }}

with transactions as (
    select * from {{ ref('int_transactions__checked') }}
    where rejection_reason is null
),

-- one pass over all transactions serves every dimension of theirs
final as (
    select
        merchant_name,
        category_name,
        city_name,
        payment_method
    from transactions
    group by
        merchant_name, category_name, city_name, payment_method
)

select * from final
