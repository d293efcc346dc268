-- Nothing is lost between raw and fact: rows that the ledger says have landed
-- are facts, earlier versions of facts, marked as broken, or of a file that was
-- replaced since.
with files as (
    select * from {{ ref('stg_transactions__files') }}
),

loads as (
    select * from {{ ref('stg_transactions__loads') }}
    where is_finished
),

replaced_files as (
    select * from {{ ref('int_transaction_files__replaced') }}
),

checked as (
    select * from {{ ref('int_transactions__checked') }}
),

fact as (
    select * from {{ ref('fct_transactions') }}
),

landed as (
    select coalesce(sum(files.rows_landed_count), 0) as row_count
    from files
    inner join loads on files.dlt_load_id = loads.dlt_load_id
),

replaced as (
    select coalesce(sum(rows_landed_count), 0) as row_count
    from replaced_files
),

sorted as (
    select
        count(case when rejection_reason is not null then 1 end)
            as marked_count,
        count(case when rejection_reason is null then 1 end) as valid_count,
        count(
            distinct case when rejection_reason is null then transaction_id end
        ) as valid_transaction_count
    from checked
),

facts as (
    select count(*) as row_count from fact
)

select
    landed.row_count as landed_count,
    replaced.row_count as replaced_count,
    sorted.marked_count,
    sorted.valid_count,
    sorted.valid_transaction_count,
    facts.row_count as fact_count
from landed
cross join replaced
cross join sorted
cross join facts
where
    landed.row_count
    != replaced.row_count + sorted.marked_count + sorted.valid_count
    or sorted.valid_transaction_count != facts.row_count
