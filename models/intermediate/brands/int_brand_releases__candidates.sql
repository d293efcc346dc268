{{ config(materialized='table') }}

{%- set near_plain = var('brand_match').near_plain -%}

with releases as (
    select * from {{ ref('int_brand_releases__unioned') }}
),

release_keys as (
    select * from {{ ref('int_brand_releases__title_keys') }}
),

movie_keys as (
    select * from {{ ref('int_movies__title_keys') }}
),

movies as (
    select * from {{ ref('int_movies__checked') }}
),

-- a loose reading of one title meets near-plain readings of the other
joined as (
    select
        release_keys.brand_release_key,
        release_keys.match_rule,
        release_keys.is_rerelease,
        movie_keys.movie_id,
        movie_keys.title_kind,
        release_keys.rule_cost + movie_keys.kind_cost as title_cost
    from release_keys
    inner join movie_keys on release_keys.title_key = movie_keys.title_key
    where
        release_keys.rule_cost <= {{ near_plain }}
        or movie_keys.kind_cost <= {{ near_plain }}
),

-- the cheapest reading that leads to each film
ranked as (
    select
        *,
        row_number() over (
            partition by brand_release_key, movie_id
            order by
                title_cost asc,
                is_rerelease asc,
                match_rule asc,
                title_kind asc
        ) as cheapness
    from joined
),

final as (
    select
        ranked.brand_release_key,
        releases.brand_name,
        releases.list_position,
        releases.release_title,
        releases.release_source,
        releases.noted_year,
        releases.gross_usd,
        ranked.movie_id,
        ranked.match_rule,
        ranked.title_kind,
        -- a year in brackets is the film's own, or that of its return
        ranked.is_rerelease
        or coalesce(
            releases.noted_year > 1 + extract(year from movies.release_date),
            false
        ) as is_rerelease,
        cast(ranked.title_cost as numeric(6, 2)) as title_cost,
        movies.title,
        movies.release_date,
        movies.runtime_minutes,
        movies.revenue_usd,
        movies.vote_count,
        {{ rounded(domestic_gross_estimate(
            'movies.revenue_usd', 'movies.vote_count', 'movies.release_date'
        ), 20, 2) }} as estimated_gross_usd
    from ranked
    inner join movies on ranked.movie_id = movies.movie_id
    inner join releases
        on ranked.brand_release_key = releases.brand_release_key
    where ranked.cheapness = 1
)

select * from final
