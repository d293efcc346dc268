-- Grain: one row per minute (UTC) of the last day, outcome, reason, currency.
-- Counts add up over everything, amounts within one currency. Transactions are
-- counted by when they happened, lines that are in no fact by when they landed;
-- such a line stays also if it is corrected later.
{%- set day_ago = dbt.dateadd('day', -1, to_utc('current_timestamp')) %}

with transactions as (
    select * from {{ ref('transactions_live') }}
    where event_at >= {{ day_ago }}
),

checked as (
    select * from {{ ref('int_transactions__checked') }}
    where
        rejection_reason is not null
        and loaded_at >= {{ day_ago }}
),

fresh as (
    select * from {{ ref('int_transactions__fresh') }}
    where
        rejection_reason is not null
        and loaded_at >= {{ day_ago }}
),

loads as (
    select * from {{ ref('stg_transactions__loads_now') }}
    where
        is_finished
        and loaded_at >= {{ day_ago }}
),

rejects as (
    select * from {{ ref('stg_transactions__rejects') }}
    where dlt_load_id >= (select min(loads.dlt_load_id) from loads)
),

marked as (
    select
        rejection_reason,
        loaded_at
    from checked
    union all
    select
        rejection_reason,
        loaded_at
    from fresh
),

series as (
    select
        {{ dbt.date_trunc('minute', 'event_at') }} as minute_at,
        'fact' as outcome,
        '(none)' as reason_code,
        currency_code,
        case when is_approved then 1 else 0 end as approved_count,
        amount,
        approved_amount
    from transactions
    union all
    select
        {{ dbt.date_trunc('minute', 'loaded_at') }} as minute_at,
        'marked' as outcome,
        rejection_reason as reason_code,
        '(none)' as currency_code,
        0 as approved_count,
        0 as amount,
        0 as approved_amount
    from marked
    union all
    select
        {{ dbt.date_trunc('minute', 'loads.loaded_at') }} as minute_at,
        'unread' as outcome,
        rejects.reason_code,
        '(none)' as currency_code,
        0 as approved_count,
        0 as amount,
        0 as approved_amount
    from rejects
    inner join loads on rejects.dlt_load_id = loads.dlt_load_id
),

summed as (
    select
        minute_at,
        outcome,
        reason_code,
        currency_code,
        count(*) as line_count,
        sum(approved_count) as approved_count,
        sum(amount) as amount,
        sum(approved_amount) as approved_amount
    from series
    group by minute_at, outcome, reason_code, currency_code
),

final as (
    select
        outcome,
        reason_code,
        currency_code,
        cast(minute_at as timestamp) as minute_at,
        cast(approved_count as bigint) as approved_count,
        cast(amount as numeric(20, 4)) as amount,
        cast(approved_amount as numeric(20, 4)) as approved_amount,
        case when outcome = 'fact' then line_count else 0 end
            as transaction_count,
        case when outcome = 'fact' then 0 else line_count end
            as rejected_count
    from summed
)

select * from final
