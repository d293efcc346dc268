with genres as (
    select * from {{ ref('stg_tmdb__genres') }}
),

movie_genres as (
    select * from {{ ref('int_movie_genres__listed') }}
),

-- a film can carry a genre that TMDB's list does not name
unioned as (
    select
        genre_id,
        genre_name
    from genres

    union all

    select
        movie_genres.genre_id,
        min(movie_genres.genre_name) as genre_name
    from movie_genres
    left join genres on movie_genres.genre_id = genres.genre_id
    where genres.genre_id is null
    group by movie_genres.genre_id

    union all

    select
        cast(null as bigint) as genre_id,
        'Unknown' as genre_name
),

final as (
    select
        {{ dbt_utils.generate_surrogate_key(['genre_id']) }} as genre_key,
        genre_id,
        genre_name,
        genre_id is null as is_unknown
    from unioned
)

select * from final
