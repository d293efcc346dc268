-- Grain: one row per film and genre; a film without any has one row, with the
-- unknown genre. Weights of a film sum to 1: measure * weight adds up.
with movies as (
    select * from {{ ref('int_movies__checked') }}
),

movie_genres as (
    select * from {{ ref('int_movie_genres__listed') }}
),

joined as (
    select
        movies.movie_id,
        movie_genres.genre_id,
        movie_genres.list_position,
        count(*) over (partition by movies.movie_id) as genre_count
    from movies
    left join movie_genres on movies.movie_id = movie_genres.movie_id
),

final as (
    select
        {{ dbt_utils.generate_surrogate_key(['movie_id']) }} as movie_key,
        {{ dbt_utils.generate_surrogate_key(['genre_id']) }} as genre_key,
        list_position,
        cast(
            cast(1 as numeric(18, 12)) / genre_count as numeric(18, 12)
        ) as weight
    from joined
)

select * from final
