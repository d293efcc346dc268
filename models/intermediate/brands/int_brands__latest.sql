with brands as (
    select * from {{ ref('stg_brands__brands') }}
),

latest_files as (
    select * from {{ ref('int_brand_files__latest') }}
    where file_kind = 'brands'
),

final as (
    select
        brands.brand_name,
        brands.index_rank,
        brands.total_gross_usd,
        brands.release_count,
        brands.top_release_title,
        brands.top_release_title_key,
        brands.top_release_gross_usd,
        brands.file_name,
        latest_files.landed_at
    from brands
    inner join latest_files
        on
            brands.dlt_load_id = latest_files.dlt_load_id
            and brands.file_checksum = latest_files.file_checksum
)

select * from final
