{{ config(materialized='table') }}

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

-- the cheapest reading that leads to each film; an original title costs more
joined as (
    select
        release_keys.brand_release_key,
        release_keys.match_rule,
        movie_keys.movie_id,
        release_keys.rule_cost + 0.1 * movie_keys.kind_rank as title_cost,
        row_number() over (
            partition by release_keys.brand_release_key, movie_keys.movie_id
            order by
                release_keys.rule_cost + 0.1 * movie_keys.kind_rank asc,
                release_keys.match_rule asc
        ) as cheapness
    from release_keys
    inner join movie_keys on release_keys.title_key = movie_keys.title_key
),

final as (
    select
        joined.brand_release_key,
        releases.brand_name,
        releases.list_position,
        releases.release_title,
        releases.release_source,
        releases.rerelease_year,
        releases.gross_usd,
        joined.movie_id,
        joined.match_rule,
        cast(joined.title_cost as numeric(6, 2)) as title_cost,
        movies.title,
        movies.release_date,
        movies.runtime_minutes,
        movies.revenue_usd,
        movies.vote_count,
        cast(
            {{ domestic_gross_estimate(
                'movies.revenue_usd', 'movies.vote_count', 'movies.release_date'
            ) }} as numeric(20, 2)
        ) as estimated_gross_usd
    from joined
    inner join movies on joined.movie_id = movies.movie_id
    inner join releases
        on joined.brand_release_key = releases.brand_release_key
    where joined.cheapness = 1
)

select * from final
