with movies as (
    select * from {{ ref('stg_tmdb__movies') }}
),

movie_genres as (
    select * from {{ ref('stg_tmdb__movie_genres') }}
),

-- one row per film and genre, however often a film lists it
listed as (
    select
        movies.movie_id,
        movie_genres.genre_id,
        min({{ sound_value('movie_genres.genre_name', 'name') }})
            as genre_name,
        min(movie_genres.list_position) as list_position
    from movie_genres
    inner join movies on movie_genres.movie_dlt_id = movies.dlt_id
    where movie_genres.genre_id is not null
    group by movies.movie_id, movie_genres.genre_id
)

select * from listed
