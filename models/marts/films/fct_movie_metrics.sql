-- Grain: one row per film and day on which it was pulled (the day's last pull).
-- Levels never add up over dates; they hold on that day.
-- vote_count and revenue_usd add up over films of one day; popularity and
-- vote_average never add up. The changes of vote_count and revenue_usd since
-- the film's pull before do add up, over films and dates.
with metrics as (
    select * from {{ ref('int_movie_metrics__daily') }}
),

movies as (
    select * from {{ ref('int_movies__checked') }}
),

-- a count that is unknown begins no new place: those after the last known one
placed as (
    select
        *,
        count(vote_count) over (
            partition by movie_id
            order by pulled_date
            rows between unbounded preceding and current row
        ) as known_count_place
    from metrics
),

counted as (
    select
        *,
        max(vote_count) over (
            partition by movie_id, known_count_place
        ) as last_known_vote_count
    from placed
),

compared as (
    select
        *,
        lag(pulled_date) over movie_by_day as previous_pulled_date,
        lag(popularity) over movie_by_day as previous_popularity,
        lag(vote_average) over movie_by_day as previous_vote_average,
        -- else a day without it would break the sum of the changes
        lag(last_known_vote_count) over movie_by_day as previous_vote_count,
        lag(revenue_usd) over movie_by_day as previous_revenue_usd
    from counted
    window movie_by_day as (partition by movie_id order by pulled_date)
),

final as (
    select
        -- metrics of a film that is gone from the catalogue stay, unattached
        {{ dbt_utils.generate_surrogate_key(['movies.movie_id']) }}
            as movie_key,
        {{ date_key('compared.pulled_date') }} as date_key,
        compared.movie_id,
        compared.pulled_date,
        compared.popularity,
        compared.vote_average,
        compared.vote_count,
        compared.revenue_usd,
        compared.previous_pulled_date,
        cast({{ dbt.datediff(
            'compared.previous_pulled_date', 'compared.pulled_date', 'day'
        ) }} as integer) as days_since_previous,
        cast(
            compared.popularity - compared.previous_popularity
            as numeric(18, 6)
        ) as popularity_change,
        cast(
            compared.vote_average - compared.previous_vote_average
            as numeric(6, 3)
        ) as vote_average_change,
        compared.vote_count - compared.previous_vote_count
            as vote_count_change,
        compared.revenue_usd - compared.previous_revenue_usd
            as revenue_usd_change,
        compared.pulled_at
    from compared
    left join movies on compared.movie_id = movies.movie_id
)

select * from final
