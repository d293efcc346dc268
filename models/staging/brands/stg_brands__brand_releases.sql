with source as (
    select * from {{ source('brands', 'brand_releases') }}
),

renamed as (
    select
        -- ids
        _dlt_load_id as dlt_load_id,
        _file_checksum as file_checksum,
        _file_line as file_line,

        -- text
        {{ normalize_text('brand') }} as brand_name,
        {{ normalize_text('release') }} as release_title,
        {{ normalize_title('release') }} as release_title_key,
        _file_name as file_name,

        -- numerics; US dollars, US and Canada only
        position as list_position,
        gross as gross_usd
    from source
)

select * from renamed
