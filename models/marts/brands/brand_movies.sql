-- Grain: one row per brand, film of it and genre of the film. A film in several
-- brands or genres has several rows: measure * brand_weight * genre_weight adds
-- up over everything; within one brand measure * genre_weight does. popularity
-- and vote_average never add up. listed_gross_usd is domestic, revenue_usd
-- worldwide: never subtracted.
with brands as (
    select * from {{ ref('dim_brand') }}
),

brand_movies as (
    select * from {{ ref('bridge_brand_movie') }}
),

movies as (
    select * from {{ ref('dim_movie') }}
),

movie_genres as (
    select * from {{ ref('bridge_movie_genre') }}
),

genres as (
    select * from {{ ref('dim_genre') }}
),

matched_releases as (
    select * from {{ ref('int_brand_releases__matched') }}
    where is_matched
),

releases as (
    select * from {{ ref('int_brand_releases__unioned') }}
),

-- a film and its re-release are two releases of one film, of which the first
-- grossed most
listed_gross as (
    select
        {{ text_key('matched_releases.brand_name') }} as brand_key,
        {{ dbt_utils.generate_surrogate_key([
            'matched_releases.movie_id'
        ]) }} as movie_key,
        max(releases.gross_usd) as listed_gross_usd
    from matched_releases
    inner join releases
        on matched_releases.brand_release_key = releases.brand_release_key
    group by matched_releases.brand_name, matched_releases.movie_id
),

final as (
    select
        brand_movies.brand_key,
        brand_movies.movie_key,
        movie_genres.genre_key,
        brands.brand_name,
        brands.has_release_list,
        movies.title,
        cast(extract(year from movies.release_date) as integer)
            as release_year,
        movies.release_date,
        genres.genre_name,
        movie_genres.weight as genre_weight,
        brand_movies.weight as brand_weight,
        brand_movies.is_top_release,
        movies.popularity,
        movies.vote_average,
        movies.vote_count,
        movies.revenue_usd,
        movies.budget_usd,
        cast(listed_gross.listed_gross_usd as numeric(20, 2))
            as listed_gross_usd
    from brand_movies
    inner join brands on brand_movies.brand_key = brands.brand_key
    inner join movies on brand_movies.movie_key = movies.movie_key
    inner join movie_genres on brand_movies.movie_key = movie_genres.movie_key
    inner join genres on movie_genres.genre_key = genres.genre_key
    left join listed_gross
        on
            brand_movies.brand_key = listed_gross.brand_key
            and brand_movies.movie_key = listed_gross.movie_key
)

select * from final
