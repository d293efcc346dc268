with source as (
    select * from {{ source('brands', 'files') }}
),

renamed as (
    select
        -- ids
        _dlt_load_id as dlt_load_id,
        _file_checksum as file_checksum,

        -- text
        kind as file_kind,
        _file_name as file_name,

        -- numerics
        rows_read as rows_read_count,
        rows_landed as rows_landed_count,
        rows_rejected as rows_rejected_count,
        bytes as file_bytes,

        -- dates and timestamps
        {{ to_utc('landed_at') }} as landed_at
    from source
)

select * from renamed
