with source as (
    select * from {{ source('tmdb', 'rejects') }}
),

renamed as (
    select
        -- ids
        movie_id,

        -- text
        path as request_path,
        field as field_name,
        reason_code,
        reason,
        raw_text,

        -- dates and timestamps
        {{ to_utc('pulled_at') }} as pulled_at
    from source
)

select * from renamed
