-- Of the loads that this build knows of.
with loads as (
    select * from {{ ref('stg_tmdb__loads') }}
    where is_finished
),

source as (
    select * from {{ source('tmdb', 'movie_metrics') }}
    where _dlt_load_id in (select loads.dlt_load_id from loads)
),

renamed as (
    select
        -- ids
        movie_id,

        -- numerics; TMDB writes 0 where it does not know
        popularity,
        case when vote_count > 0 then vote_average end as vote_average,
        vote_count,
        nullif(revenue, 0) as revenue_usd,

        -- dates and timestamps
        {{ to_utc('pulled_at') }} as pulled_at,
        cast({{ to_utc('pulled_at') }} as date) as pulled_date
    from source
)

select * from renamed
