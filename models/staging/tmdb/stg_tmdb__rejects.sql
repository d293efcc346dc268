-- Of the loads that this build knows of.
with loads as (
    select * from {{ ref('stg_tmdb__loads') }}
    where is_finished
),

source as (
    select * from {{ source('tmdb', 'rejects') }}
    where _dlt_load_id in (select loads.dlt_load_id from loads)
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
