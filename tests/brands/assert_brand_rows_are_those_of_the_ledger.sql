-- Every row of a brand file is there, landed or rejected, and no other: as many
-- as the ledger of files counts.
with loads as (
    select * from {{ ref('stg_brands__loads') }}
    where is_finished
),

all_files as (
    select * from {{ ref('stg_brands__files') }}
),

files as (
    select all_files.*
    from all_files
    inner join loads on all_files.dlt_load_id = loads.dlt_load_id
),

found as (
    select
        'brands' as file_kind,
        file_checksum,
        dlt_load_id,
        1 as landed,
        0 as rejected
    from {{ ref('stg_brands__brands') }}

    union all

    select
        'brand_releases' as file_kind,
        file_checksum,
        dlt_load_id,
        1 as landed,
        0 as rejected
    from {{ ref('stg_brands__brand_releases') }}

    union all

    select
        file_kind,
        file_checksum,
        dlt_load_id,
        0 as landed,
        1 as rejected
    from {{ ref('stg_brands__rejects') }}
),

counted as (
    select
        file_kind,
        file_checksum,
        dlt_load_id,
        sum(landed) as landed_count,
        sum(rejected) as rejected_count
    from found
    group by file_kind, file_checksum, dlt_load_id
)

select
    files.file_name,
    files.rows_landed_count,
    files.rows_rejected_count,
    counted.landed_count,
    counted.rejected_count
from files
left join counted
    on
        files.file_kind = counted.file_kind
        and files.file_checksum = counted.file_checksum
        and files.dlt_load_id = counted.dlt_load_id
where
    files.rows_landed_count != coalesce(counted.landed_count, 0)
    or files.rows_rejected_count != coalesce(counted.rejected_count, 0)
    or files.rows_read_count
    != files.rows_landed_count + files.rows_rejected_count
