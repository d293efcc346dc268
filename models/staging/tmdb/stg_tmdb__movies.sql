-- The films that all models of a build read: those that are pulled while they
-- are built wait for the next build. Loads are listed first, so that films of
-- all listed ones are there.
{{
    config(
        materialized='incremental',
        incremental_strategy=replace_all(),
        on_schema_change='fail',
        pre_hook="{{ delete_all_before_step(
            after=ref('stg_tmdb__loads')
        ) }}"
    )
}}

with source as (
    select * from {{ source('tmdb', 'movies') }}
),

renamed as (
    select
        -- ids
        id as movie_id,
        {{ normalize_text('imdb_id') }} as imdb_id,
        belongs_to_collection__id as collection_id,
        _dlt_id as dlt_id,

        -- text
        {{ normalize_text('title') }} as title,
        {{ normalize_text('original_title') }} as original_title,
        {{ normalize_text('original_language') }} as original_language,
        {{ normalize_text('status') }} as status,
        {{ normalize_text('belongs_to_collection__name') }} as collection_name,
        {{ normalize_title('title') }} as title_key,
        {{ normalize_title('original_title') }} as original_title_key,

        -- numerics; TMDB writes 0 where it does not know
        nullif(runtime, 0) as runtime_minutes,
        nullif(budget, 0) as budget_usd,
        nullif(revenue, 0) as revenue_usd,
        popularity,
        case when vote_count > 0 then vote_average end as vote_average,
        vote_count,

        -- booleans
        coalesce(adult, false) as is_adult,
        coalesce(video, false) as is_video,

        -- dates and timestamps
        release_date,
        {{ to_utc('pulled_at') }} as pulled_at
    from source
)

select * from renamed
