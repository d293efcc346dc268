-- The film's number is looked up here, where both are of one moment: a film
-- that is pulled again gets another dlt id, and its list with it.
with source as (
    select * from {{ source('tmdb', 'movies__crew') }}
),

movies as (
    select * from {{ source('tmdb', 'movies') }}
),

renamed as (
    select
        -- ids
        movies.id as movie_id,
        source.id as person_id,

        -- text
        {{ normalize_text('source.name') }} as person_name,
        {{ normalize_text('source.department') }} as department,
        {{ normalize_text('source.job') }} as job,

        -- numerics
        source._dlt_list_idx + 1 as list_position
    from source
    inner join movies on source._dlt_parent_id = movies._dlt_id
)

select * from renamed
