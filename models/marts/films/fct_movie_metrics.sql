-- Grain: one row per film and day on which it was pulled (the day's last pull).
-- Nothing here adds up over dates: every measure is a level on that day.
-- vote_count and revenue_usd add up over films of one day; popularity and
-- vote_average never add up.
with metrics as (
    select * from {{ ref('int_movie_metrics__daily') }}
),

movies as (
    select * from {{ ref('stg_tmdb__movies') }}
),

final as (
    select
        -- metrics of a film that is gone from the catalogue stay, unattached
        {{ dbt_utils.generate_surrogate_key(['movies.movie_id']) }}
            as movie_key,
        {{ date_key('metrics.pulled_date') }} as date_key,
        metrics.movie_id,
        metrics.pulled_date,
        metrics.popularity,
        metrics.vote_average,
        metrics.vote_count,
        metrics.revenue_usd,
        metrics.pulled_at
    from metrics
    left join movies on metrics.movie_id = movies.movie_id
)

select * from final
