-- Every line that a file's ledger counts is there, landed or rejected, and no
-- other: models that grow by new loads would not notice what raw tables lose.
with loads as (
    select * from {{ ref('stg_transactions__loads') }}
    where is_finished
),

all_files as (
    select * from {{ ref('stg_transactions__files') }}
),

files as (
    select all_files.*
    from all_files
    inner join loads on all_files.dlt_load_id = loads.dlt_load_id
),

landed as (
    select
        dlt_load_id,
        file_checksum,
        count(*) as row_count
    from {{ ref('stg_transactions__transactions') }}
    group by dlt_load_id, file_checksum
),

rejected as (
    select
        dlt_load_id,
        file_checksum,
        count(*) as row_count
    from {{ ref('stg_transactions__rejects') }}
    group by dlt_load_id, file_checksum
)

select
    files.file_name,
    files.rows_landed_count,
    files.rows_rejected_count,
    landed.row_count as landed_count,
    rejected.row_count as rejected_count
from files
left join landed
    on
        files.dlt_load_id = landed.dlt_load_id
        and files.file_checksum = landed.file_checksum
left join rejected
    on
        files.dlt_load_id = rejected.dlt_load_id
        and files.file_checksum = rejected.file_checksum
where
    files.rows_landed_count != coalesce(landed.row_count, 0)
    or files.rows_rejected_count != coalesce(rejected.row_count, 0)
