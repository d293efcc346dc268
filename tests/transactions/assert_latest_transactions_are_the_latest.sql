-- No transaction of the fact is later than one that latest_transactions keeps
-- and not kept itself, and as many are kept as there are, up to the variable.
with transactions as (
    select * from {{ ref('fct_transactions') }}
),

latest as (
    select * from {{ ref('latest_transactions') }}
),

kept as (
    select
        min(date_day) as first_day,
        min(event_at) as first_event_at,
        count(*) as kept_count
    from latest
),

-- by day too: the fact has an index on it
later as (
    select
        count(
            case when transactions.event_at > kept.first_event_at then 1 end
        ) as later_count
    from transactions
    cross join kept
    where transactions.event_date >= kept.first_day
),

kept_later as (
    select count(*) as kept_later_count
    from latest
    cross join kept
    where latest.event_at > kept.first_event_at
)

select
    kept.kept_count,
    later.later_count,
    kept_later.kept_later_count
from kept
cross join later
cross join kept_later
where
    later.later_count != kept_later.kept_later_count
    or (
        kept.kept_count < {{ var('latest_transactions') }}
        and kept.kept_count != (select count(*) from transactions)
    )
    or kept.kept_count > {{ var('latest_transactions') }}
