-- A change begins with the status and at the moment that the one before left,
-- changes something, and the first one comes from the unknown status.
with changes as (
    select
        *,
        lag(transaction_status_key) over (
            partition by transaction_id
            order by change_number
        ) as status_key_before,
        lag(changed_at) over (
            partition by transaction_id
            order by change_number
        ) as changed_at_before,
        row_number() over (
            partition by transaction_id
            order by changed_at, change_number
        ) as place
    from {{ ref('fct_transaction_status_changes') }}
),

unknown_status as (
    select transaction_status_key
    from {{ ref('dim_transaction_status') }}
    where is_unknown
)

select
    changes.transaction_id,
    changes.change_number
from changes
cross join unknown_status
where
    changes.change_number != changes.place
    or changes.previous_transaction_status_key
    != coalesce(
        changes.status_key_before, unknown_status.transaction_status_key
    )
    or changes.transaction_status_key = changes.status_key_before
    or coalesce(changes.previous_changed_at != changes.changed_at_before, false)
    or (changes.previous_changed_at is null and changes.change_number > 1)
