with movies as (
    select * from {{ ref('stg_tmdb__movies') }}
),

keyed as (
    select
        movie_id,
        title_key,
        'title' as title_kind
    from movies
    where title_key is not null

    union all

    select
        movie_id,
        original_title_key as title_key,
        'original_title' as title_kind
    from movies
    where
        original_title_key is not null
        and (title_key is null or original_title_key != title_key)
)

select * from keyed
