{{ config(materialized='table') }}

with candidates as (
    select * from {{ ref('int_brand_releases__candidates') }}
),

-- films whose title is the release's as TMDB prints it, by votes
by_votes as (
    select
        brand_release_key,
        brand_name,
        release_source,
        movie_id,
        release_date,
        estimated_gross_usd,
        vote_count,
        lead(vote_count) over (
            partition by brand_release_key
            order by vote_count desc, movie_id asc
        ) as rival_vote_count,
        row_number() over (
            partition by brand_release_key
            order by vote_count desc, movie_id asc
        ) as vote_rank
    from candidates
    where
        title_cost <= 0.3
        and not is_rerelease
),

-- no rival has even a tenth of the votes
final as (
    select
        brand_release_key,
        brand_name,
        release_source,
        movie_id,
        release_date,
        estimated_gross_usd
    from by_votes
    where
        vote_rank = 1
        and vote_count >= 50
        and coalesce(rival_vote_count, 0) <= 0.1 * vote_count
)

select * from final
