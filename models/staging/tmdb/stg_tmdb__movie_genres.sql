with source as (
    select * from {{ source('tmdb', 'movies__genres') }}
),

renamed as (
    select
        -- ids
        _dlt_parent_id as movie_dlt_id,
        id as genre_id,

        -- text
        {{ trim_text('name') }} as genre_name,

        -- numerics
        _dlt_list_idx + 1 as list_position
    from source
)

select * from renamed
