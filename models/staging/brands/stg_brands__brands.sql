with source as (
    select * from {{ source('brands', 'brands') }}
),

renamed as (
    select
        -- ids
        _dlt_load_id as dlt_load_id,
        _file_checksum as file_checksum,
        _file_line as file_line,

        -- text
        {{ normalize_text('brand') }} as brand_name,
        {{ normalize_text('top_release') }} as top_release_title,
        {{ normalize_title('top_release') }} as top_release_title_key,
        _file_name as file_name,

        -- numerics; US dollars, US and Canada only
        rank as index_rank,
        total as total_gross_usd,
        releases as release_count,
        lifetime_gross as top_release_gross_usd
    from source
)

select * from renamed
