-- Over brands and genres each film counts once: weighted revenue of the wide
-- mart equals the revenue of all films that have a brand.
with brand_movies as (
    select * from {{ ref('brand_movies') }}
),

movies as (
    select * from {{ ref('dim_movie') }}
),

branded as (
    select distinct movie_key from {{ ref('bridge_brand_movie') }}
),

shared as (
    select
        count(distinct movie_key) as movie_count,
        coalesce(sum(revenue_usd * brand_weight * genre_weight), 0)
            as revenue_usd
    from brand_movies
),

counted_once as (
    select
        count(*) as movie_count,
        coalesce(sum(movies.revenue_usd), 0) as revenue_usd
    from movies
    inner join branded on movies.movie_key = branded.movie_key
)

select
    shared.movie_count,
    counted_once.movie_count as branded_movie_count,
    shared.revenue_usd,
    counted_once.revenue_usd as branded_revenue_usd
from shared
cross join counted_once
where
    shared.movie_count != counted_once.movie_count
    -- weights are cut off after 12 digits
    or abs(shared.revenue_usd - counted_once.revenue_usd) > 100
