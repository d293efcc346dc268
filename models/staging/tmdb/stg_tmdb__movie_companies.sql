with source as (
    select * from {{ source('tmdb', 'movies__production_companies') }}
),

renamed as (
    select
        -- ids
        _dlt_parent_id as movie_dlt_id,
        id as company_id,

        -- text
        {{ trim_text('name') }} as company_name,
        {{ trim_text('origin_country') }} as origin_country,

        -- numerics
        _dlt_list_idx + 1 as list_position
    from source
)

select * from renamed
