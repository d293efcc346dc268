with source as (
    select * from {{ source('tmdb', 'removed_movies') }}
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
