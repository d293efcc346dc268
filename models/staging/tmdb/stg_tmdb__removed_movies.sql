-- Of the loads that this build knows of.
with loads as (
    select * from {{ ref('stg_tmdb__loads') }}
    where is_finished
),

source as (
    select * from {{ source('tmdb', 'removed_movies') }}
    where _dlt_load_id in (select loads.dlt_load_id from loads)
),

renamed as (
    select
        -- ids
        movie_id,

        -- dates and timestamps
        {{ to_utc('asked_at') }} as asked_at
    from source
)

select * from renamed
