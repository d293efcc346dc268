-- Each transaction of the fact has the status of the last of its changes, and
-- no change is without its transaction.
with changes as (
    select
        transaction_id,
        transaction_status_key,
        row_number() over (
            partition by transaction_id
            order by change_number desc
        ) as change_recency
    from {{ ref('fct_transaction_status_changes') }}
),

last_changes as (
    select * from changes
    where change_recency = 1
),

transactions as (
    select * from {{ ref('fct_transactions') }}
)

select
    transactions.transaction_id as fact_transaction_id,
    last_changes.transaction_id as changed_transaction_id,
    transactions.transaction_status_key as fact_status_key,
    last_changes.transaction_status_key as last_status_key
from transactions
full outer join last_changes
    on transactions.transaction_id = last_changes.transaction_id
where
    transactions.transaction_id is null
    or last_changes.transaction_id is null
    or transactions.transaction_status_key
    != last_changes.transaction_status_key
