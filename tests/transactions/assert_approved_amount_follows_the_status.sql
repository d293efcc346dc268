-- The whole amount counts as approved where the status says so, else nothing.
with facts as (
    select * from {{ ref('fct_transactions') }}
),

statuses as (
    select * from {{ ref('dim_transaction_status') }}
)

select
    facts.transaction_id,
    statuses.transaction_status,
    facts.amount,
    facts.approved_amount
from facts
inner join statuses
    on facts.transaction_status_key = statuses.transaction_status_key
where
    facts.approved_amount
    != case when statuses.is_approved then facts.amount else 0 end
