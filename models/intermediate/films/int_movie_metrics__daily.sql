with metrics as (
    select * from {{ ref('stg_tmdb__movie_metrics') }}
),

-- a film pulled twice on one day counts with its last pull
ranked as (
    select
        *,
        row_number() over (
            partition by movie_id, pulled_date
            order by pulled_at desc
        ) as pull_recency
    from metrics
),

final as (
    select
        movie_id,
        pulled_date,
        pulled_at,
        {{ sound_value('popularity') }} as popularity,
        {{ sound_value('vote_average') }} as vote_average,
        {{ sound_value('vote_count') }} as vote_count,
        {{ sound_value('revenue_usd') }} as revenue_usd
    from ranked
    where pull_recency = 1
)

select * from final
