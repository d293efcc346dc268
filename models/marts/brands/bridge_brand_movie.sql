-- Grain: one row per brand and film. A film in several brands has one row in
-- each; its weights sum to 1, so that measure * weight adds up over brands.
with releases as (
    select * from {{ ref('int_brand_releases__matched') }}
    where is_matched
),

-- a film and its re-release are two releases of one film
films as (
    select
        brand_name,
        movie_id,
        min(list_position) as list_position,
        count(*) as release_count,
        max(case when is_top_release then 1 else 0 end) = 1 as is_top_release
    from releases
    group by brand_name, movie_id
),

weighted as (
    select
        *,
        count(*) over (partition by movie_id) as brand_count
    from films
),

final as (
    select
        {{ text_key('brand_name') }} as brand_key,
        {{ dbt_utils.generate_surrogate_key(['movie_id']) }} as movie_key,
        list_position,
        release_count,
        is_top_release,
        cast(
            cast(1 as numeric(18, 12)) / brand_count as numeric(18, 12)
        ) as weight
    from weighted
)

select * from final
