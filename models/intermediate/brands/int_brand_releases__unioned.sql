with brand_releases as (
    select * from {{ ref('stg_brands__brand_releases') }}
),

latest_files as (
    select * from {{ ref('int_brand_files__latest') }}
    where file_kind = 'brand_releases'
),

brands as (
    select * from {{ ref('int_brands__latest') }}
),

listed_releases as (
    select
        brand_releases.brand_name,
        brand_releases.list_position,
        brand_releases.release_title,
        brand_releases.release_title_key,
        brand_releases.gross_usd,
        'release_list' as release_source
    from brand_releases
    inner join latest_files
        on
            brand_releases.dlt_load_id = latest_files.dlt_load_id
            and brand_releases.file_checksum = latest_files.file_checksum
),

-- brands without a list, or with one that does not name the #1 release
index_releases as (
    select
        brands.brand_name,
        0 as list_position,
        brands.top_release_title as release_title,
        brands.top_release_title_key as release_title_key,
        brands.top_release_gross_usd as gross_usd,
        'brand_index' as release_source
    from brands
    left join listed_releases
        on
            brands.brand_name = listed_releases.brand_name
            and brands.top_release_title_key = listed_releases.release_title_key
    where
        brands.top_release_title is not null
        and listed_releases.brand_name is null
),

unioned as (
    select * from listed_releases
    union all
    select * from index_releases
),

{{ release_note_ctes('unioned') }},

described as (
    select
        *,
        release_note is not null and not is_year_of_film as is_noted
    from unioned_noted
),

-- a re-release has the #1 release's title, and a gross of its own
topped as (
    select
        described.*,
        brands.top_release_gross_usd,
        coalesce(
            brands.top_release_title_key = described.release_title_key
            and (
                not described.is_noted
                or described.release_source = 'brand_index'
            ),
            false
        ) as is_top_release
    from described
    left join brands on described.brand_name = brands.brand_name
),

final as (
    select
        -- the brand hashed by itself, so that no hyphen of its name can pass
        -- for the one between the parts
        {{ dbt_utils.generate_surrogate_key([
            text_key('brand_name'), 'list_position', 'release_title'
        ]) }} as brand_release_key,
        brand_name,
        list_position,
        release_title,
        release_title_key,
        release_source,
        printed_title,
        bare_title,
        {{ title_key('bare_title') }} as bare_title_key,
        release_note,
        noted_year,
        is_noted,
        is_top_release,
        coalesce(
            gross_usd,
            case when is_top_release then top_release_gross_usd end
        ) as gross_usd
    from topped
)

select * from final
