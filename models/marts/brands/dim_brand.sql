with brands as (
    select * from {{ ref('int_brands__latest') }}
),

releases as (
    select * from {{ ref('int_brand_releases__matched') }}
),

merchant_brands as (
    select {{ normalize_text('brand_name') }} as brand_name
    from {{ ref('merchant_brands') }}
),

-- a release list or a merchant can name a brand that the index does not
named as (
    select brand_name from brands
    union distinct
    select brand_name from releases
    union distinct
    select brand_name from merchant_brands
    union distinct
    select cast(null as {{ dbt.type_string() }}) as brand_name
),

release_counts as (
    select
        brand_name,
        count(
            case when release_source = 'release_list' then 1 end
        ) as listed_release_count,
        count(case when is_matched then 1 end) as matched_release_count
    from releases
    group by brand_name
),

final as (
    select
        {{ text_key('named.brand_name') }}
            as brand_key,
        {{ name_or_unknown('named.brand_name') }} as brand_name,
        brands.index_rank,
        brands.total_gross_usd as index_total_gross_usd,
        brands.release_count as index_release_count,
        brands.top_release_title,
        brands.top_release_gross_usd,
        coalesce(release_counts.listed_release_count, 0)
            as listed_release_count,
        coalesce(release_counts.matched_release_count, 0)
            as matched_release_count,
        coalesce(release_counts.listed_release_count, 0) > 0
            as has_release_list,
        brands.landed_at as index_landed_at,
        named.brand_name is null as is_unknown
    from named
    left join brands on named.brand_name = brands.brand_name
    left join release_counts on named.brand_name = release_counts.brand_name
)

select * from final
