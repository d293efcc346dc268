with source as (
    select * from {{ source('brands', 'rejects') }}
),

renamed as (
    select
        -- ids
        _dlt_load_id as dlt_load_id,
        _file_checksum as file_checksum,
        _file_line as file_line,

        -- text
        kind as file_kind,
        reason_code,
        reason,
        raw_text,
        _file_name as file_name
    from source
)

select * from renamed
