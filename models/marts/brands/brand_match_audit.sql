-- Grain: one row per release of a brand, found or not, with what decided.
-- Where none was found, the nearest film is the one that it nearly took.
with releases as (
    select * from {{ ref('int_brand_releases__matched') }}
),

scored as (
    select * from {{ ref('int_brand_releases__scored') }}
),

movies as (
    select * from {{ ref('dim_movie') }}
),

final as (
    select
        releases.brand_release_key,
        {{ text_key('releases.brand_name') }}
            as brand_key,
        {{ dbt_utils.generate_surrogate_key(['releases.movie_id']) }}
            as movie_key,
        releases.brand_name,
        cast(releases.list_position as bigint) as list_position,
        releases.release_title,
        releases.release_source,
        releases.match_status,
        releases.match_reason,
        releases.match_rule,
        movies.title,
        movies.release_date,
        nearest_movies.title as nearest_title,
        nearest_movies.release_date as nearest_release_date,
        cast(releases.nearest_score as numeric(8, 4)) as nearest_score,
        releases.candidate_count,
        cast(releases.score as numeric(8, 4)) as score,
        cast(releases.score_lead as numeric(8, 4)) as score_lead,
        scored.expected_gross_usd,
        scored.estimated_gross_usd,
        scored.company_affinity
    from releases
    left join movies on releases.movie_id = movies.movie_id
    left join movies as nearest_movies
        on releases.nearest_movie_id = nearest_movies.movie_id
    left join scored
        on
            releases.brand_release_key = scored.brand_release_key
            and releases.movie_id = scored.movie_id
)

select * from final
