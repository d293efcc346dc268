-- A film of several brands counts once in the grand total: weighted revenue
-- over all brands equals the revenue of all films that have a brand.
with performance as (
    select * from {{ ref('brand_performance') }}
),

brand_movies as (
    select * from {{ ref('bridge_brand_movie') }}
),

movies as (
    select * from {{ ref('dim_movie') }}
),

branded as (
    select distinct movie_key from brand_movies
),

by_brand as (
    select sum(weighted_revenue_usd) as revenue_usd from performance
),

by_movie as (
    select sum(movies.revenue_usd) as revenue_usd
    from movies
    inner join branded on movies.movie_key = branded.movie_key
)

select
    by_brand.revenue_usd as revenue_by_brand,
    by_movie.revenue_usd as revenue_by_movie
from by_brand
cross join by_movie
-- weights are cut off after 12 digits, sums rounded to cents
where
    abs(coalesce(by_brand.revenue_usd, 0) - coalesce(by_movie.revenue_usd, 0))
    > 100
