-- Count, total and approved amount are the same in the fact and in every mart
-- made of it.
with totals as (
    select
        'fct_transactions' as mart_name,
        count(*) as transaction_count,
        coalesce(sum(amount), 0) as total_amount,
        coalesce(sum(approved_amount), 0) as approved_amount
    from {{ ref('fct_transactions') }}

    union all

    select
        'daily_transactions' as mart_name,
        coalesce(sum(transaction_count), 0) as transaction_count,
        coalesce(sum(total_amount), 0) as total_amount,
        coalesce(sum(approved_amount), 0) as approved_amount
    from {{ ref('daily_transactions') }}

    union all

    select
        'merchant_ranking' as mart_name,
        coalesce(sum(transaction_count), 0) as transaction_count,
        coalesce(sum(total_amount), 0) as total_amount,
        coalesce(sum(approved_amount), 0) as approved_amount
    from {{ ref('merchant_ranking') }}
),

fact as (
    select * from totals
    where mart_name = 'fct_transactions'
)

select
    totals.mart_name,
    totals.transaction_count,
    totals.total_amount,
    totals.approved_amount
from totals
cross join fact
where
    totals.transaction_count != fact.transaction_count
    or totals.total_amount != fact.total_amount
    or totals.approved_amount != fact.approved_amount
