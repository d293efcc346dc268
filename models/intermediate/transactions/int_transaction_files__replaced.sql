with files as (
    select * from {{ ref('stg_transactions__files') }}
),

loads as (
    select * from {{ ref('stg_transactions__loads') }}
    where is_finished
),

landed as (
    select
        files.dlt_load_id,
        files.file_checksum,
        files.file_path,
        files.rows_landed_count,
        files.is_replacement,
        loads.loaded_at
    from files
    inner join loads on files.dlt_load_id = loads.dlt_load_id
),

-- a replacement stands for all that landed from its path before
replaced as (
    select
        earlier.dlt_load_id,
        earlier.file_checksum,
        earlier.file_path,
        earlier.rows_landed_count,
        earlier.loaded_at,
        min(replacements.loaded_at) as replaced_at
    from landed as earlier
    inner join landed as replacements
        on
            earlier.file_path = replacements.file_path
            and earlier.loaded_at < replacements.loaded_at
    where replacements.is_replacement
    group by
        earlier.dlt_load_id,
        earlier.file_checksum,
        earlier.file_path,
        earlier.rows_landed_count,
        earlier.loaded_at
)

select * from replaced
