-- What has landed since int_transactions__checked was built, judged by the same
-- rules when it is asked. Rows of files that were replaced since are among it.
with checked as (
    select
        coalesce(
            max(loaded_at), cast('1970-01-01 00:00:00' as timestamp)
        ) as loaded_until
    from {{ ref('int_transactions__checked') }}
),

loads as (
    select * from {{ ref('stg_transactions__loads_now') }}
    where
        is_finished
        and loaded_at > (select checked.loaded_until from checked)
),

-- ids of loads begin with the time: by the first one, an index on them finds
-- the others
transactions as (
    select * from {{ ref('stg_transactions__transactions') }}
    where dlt_load_id >= (select min(loads.dlt_load_id) from loads)
),

landed as (
    select
        transactions.*,
        loads.loaded_at
    from transactions
    inner join loads on transactions.dlt_load_id = loads.dlt_load_id
),

{{ judged(
    'landed', ref('currencies'), ref('transaction_statuses')
) }}

select * from judged
