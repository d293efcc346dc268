-- The film's number is looked up here, where both are of one moment: a film
-- that is pulled again gets another dlt id, and its list with it.
with source as (
    select * from {{ source('tmdb', 'movies__alternative_titles') }}
),

movies as (
    select * from {{ source('tmdb', 'movies') }}
),

renamed as (
    select
        -- ids
        movies.id as movie_id,

        -- text
        {{ normalize_text('source.title') }} as title,
        {{ normalize_text('source.iso_3166_1') }} as country_code,
        {{ normalize_text('source.type') }} as title_type,

        -- numerics
        source._dlt_list_idx + 1 as list_position
    from source
    inner join movies on source._dlt_parent_id = movies._dlt_id
)

select * from renamed
