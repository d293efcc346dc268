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
    select * from {{ ref('stg_tmdb__movies') }}
),

-- the strictest reading that leads to each film;
-- a film's own title counts before its original one
joined as (
    select
        release_keys.brand_release_key,
        release_keys.match_rule,
        release_keys.rule_rank,
        movie_keys.movie_id,
        row_number() over (
            partition by release_keys.brand_release_key, movie_keys.movie_id
            order by release_keys.rule_rank asc, movie_keys.title_kind desc
        ) as strictness
    from release_keys
    inner join movie_keys on release_keys.title_key = movie_keys.title_key
),

final as (
    select
        joined.brand_release_key,
        joined.movie_id,
        joined.match_rule,
        joined.rule_rank,
        movies.title,
        movies.release_date,
        movies.revenue_usd,
        movies.vote_count,
        -- a film that grossed less worldwide than at home is another film
        coalesce(
            movies.revenue_usd < releases.gross_usd * 0.9, false
        ) as is_gross_contradicted
    from joined
    inner join movies on joined.movie_id = movies.movie_id
    inner join releases
        on joined.brand_release_key = releases.brand_release_key
    where joined.strictness = 1
)

select * from final
