-- Grain: one row per brand and day on which films were pulled, from the first
-- pull of one of the brand's films on. A pull may ask for some films only: each
-- film counts with its last figures up to that day, so that a day compares
-- with the next. Nothing adds up over days; movie_count and vote_count count a
-- film in each of its brands.
with brands as (
    select * from {{ ref('dim_brand') }}
),

brand_movies as (
    select * from {{ ref('bridge_brand_movie') }}
),

metrics as (
    select * from {{ ref('fct_movie_metrics') }}
),

pulled_days as (
    select distinct pulled_date as date_day
    from metrics
),

-- figures hold until the film's next pull
held as (
    select
        movie_key,
        pulled_date,
        popularity,
        vote_average,
        vote_count,
        lead(pulled_date) over (
            partition by movie_id
            order by pulled_date
        ) as next_pulled_date
    from metrics
),

summed as (
    select
        brand_movies.brand_key,
        pulled_days.date_day,
        count(*) as movie_count,
        count(
            case when held.pulled_date = pulled_days.date_day then 1 end
        ) as pulled_movie_count,
        avg(held.popularity) as mean_popularity,
        avg(held.vote_average) as mean_vote_average,
        sum(held.vote_count) as vote_count
    from brand_movies
    inner join held on brand_movies.movie_key = held.movie_key
    inner join pulled_days
        on
            held.pulled_date <= pulled_days.date_day
            and (
                held.next_pulled_date > pulled_days.date_day
                or held.next_pulled_date is null
            )
    group by brand_movies.brand_key, pulled_days.date_day
),

final as (
    select
        summed.brand_key,
        {{ date_key('summed.date_day') }} as date_key,
        brands.brand_name,
        brands.has_release_list,
        summed.date_day,
        summed.movie_count,
        summed.pulled_movie_count,
        {{ rounded('summed.mean_popularity', 18, 6) }} as mean_popularity,
        {{ rounded('summed.mean_vote_average', 6, 3) }} as mean_vote_average,
        cast(summed.vote_count as bigint) as vote_count
    from summed
    inner join brands on summed.brand_key = brands.brand_key
)

select * from final
