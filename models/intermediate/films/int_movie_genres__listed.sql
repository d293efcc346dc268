{{ config(materialized='table') }}

with movie_genres as (
    select * from {{ ref('stg_tmdb__movie_genres') }}
),

-- one row per film and genre, however often a film lists it
listed as (
    select
        movie_id,
        genre_id,
        min({{ sound_value('genre_name', 'name') }}) as genre_name,
        min(list_position) as list_position
    from movie_genres
    where genre_id is not null
    group by movie_id, genre_id
)

select * from listed
