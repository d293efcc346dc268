with source as (
    select * from {{ source('transactions', 'files') }}
),

renamed as (
    select
        -- ids
        _dlt_load_id as dlt_load_id,
        _file_checksum as file_checksum,
        replay_of as replayed_load_id,

        -- text
        _file_name as file_name,
        path as file_path,
        mapping as mapping_name,

        -- numerics
        first_line as first_line_number,
        last_line as last_line_number,
        lines_read as lines_read_count,
        rows_landed as rows_landed_count,
        rows_rejected as rows_rejected_count,
        bytes as file_bytes,
        seconds as load_seconds,

        -- booleans
        is_replacement,

        -- dates and timestamps
        {{ to_utc('landed_at') }} as landed_at
    from source
)

select * from renamed
