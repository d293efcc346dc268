-- The bucket of each fact is the one with the highest lower bound that its
-- amount reaches.
with facts as (
    select * from {{ ref('fct_transactions') }}
),

buckets as (
    select
        amount_bucket,
        lower_bound,
        lead(lower_bound) over (order by lower_bound) as next_lower_bound
    from {{ ref('amount_buckets') }}
)

select
    facts.transaction_id,
    facts.amount,
    facts.amount_bucket
from facts
left join buckets on facts.amount_bucket = buckets.amount_bucket
where
    buckets.lower_bound is null
    or facts.amount < buckets.lower_bound
    or facts.amount >= buckets.next_lower_bound
