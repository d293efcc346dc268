with candidates as (
    select * from {{ ref('int_brand_releases__candidates') }}
),

certain as (
    select * from {{ ref('int_brand_releases__certain') }}
),

listed_companies as (
    select * from {{ ref('stg_tmdb__movie_companies') }}
),

-- companies of the candidates only: those of all films would be far more rows
movie_companies as (
    select
        candidates.movie_id,
        listed_companies.company_id
    from candidates
    inner join listed_companies
        on candidates.movie_id = listed_companies.movie_id
    where listed_companies.company_id is not null
    group by candidates.movie_id, listed_companies.company_id
),

-- the certain films of each brand
brand_movies as (
    select
        brand_name,
        movie_id
    from certain
    group by brand_name, movie_id
),

brand_movie_counts as (
    select
        brand_name,
        count(*) as movie_count
    from brand_movies
    group by brand_name
),

-- how many of them each company made
brand_companies as (
    select
        brand_movies.brand_name,
        movie_companies.company_id,
        count(*) as movie_count
    from brand_movies
    inner join movie_companies
        on brand_movies.movie_id = movie_companies.movie_id
    group by brand_movies.brand_name, movie_companies.company_id
),

-- a film does not speak for itself: it is left out of its own brand's counts
compared as (
    select
        candidates.brand_release_key,
        candidates.movie_id,
        brand_companies.movie_count,
        brand_movie_counts.movie_count as brand_movie_count,
        case when brand_movies.movie_id is null then 0 else 1 end as own_count
    from candidates
    inner join movie_companies
        on candidates.movie_id = movie_companies.movie_id
    inner join brand_companies
        on
            candidates.brand_name = brand_companies.brand_name
            and movie_companies.company_id = brand_companies.company_id
    inner join brand_movie_counts
        on candidates.brand_name = brand_movie_counts.brand_name
    left join brand_movies
        on
            candidates.brand_name = brand_movies.brand_name
            and candidates.movie_id = brand_movies.movie_id
),

-- the company that made most of them counts
final as (
    select
        brand_release_key,
        movie_id,
        max(
            cast(
                cast(movie_count - own_count as numeric(18, 12))
                / nullif(brand_movie_count - own_count, 0)
                as numeric(18, 12)
            )
        ) as company_affinity
    from compared
    group by brand_release_key, movie_id
)

select * from final
