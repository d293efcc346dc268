with source as (
    select * from {{ source('tmdb', 'genres') }}
),

renamed as (
    select
        -- ids
        id as genre_id,

        -- text
        {{ normalize_text('name') }} as genre_name
    from source
)

select * from renamed
