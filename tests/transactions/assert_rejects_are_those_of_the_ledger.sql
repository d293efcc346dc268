-- Every line that a file's ledger counts as rejected is there, and no other.
with files as (
    select * from {{ ref('stg_transactions__files') }}
),

rejects as (
    select * from {{ ref('stg_transactions__rejects') }}
),

counted as (
    select
        dlt_load_id,
        file_checksum,
        count(*) as reject_count
    from rejects
    group by dlt_load_id, file_checksum
)

select
    files.file_name,
    files.rows_rejected_count,
    coalesce(counted.reject_count, 0) as reject_count
from files
left join counted
    on
        files.dlt_load_id = counted.dlt_load_id
        and files.file_checksum = counted.file_checksum
where files.rows_rejected_count != coalesce(counted.reject_count, 0)
