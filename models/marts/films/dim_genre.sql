with genres as (
    select * from {{ ref('stg_tmdb__genres') }}
),

movie_genres as (
    select * from {{ ref('int_movie_genres__listed') }}
),

named as (
    select
        genre_id,
        {{ sound_value('genre_name', 'name') }} as listed_name,
        cast(null as {{ dbt.type_string() }}) as name_in_movies
    from genres

    union all

    select
        genre_id,
        cast(null as {{ dbt.type_string() }}) as listed_name,
        genre_name as name_in_movies
    from movie_genres
),

-- a film can carry a genre that TMDB's list does not name
genre_names as (
    select
        genre_id,
        coalesce(min(listed_name), min(name_in_movies)) as genre_name
    from named
    group by genre_id
),

unioned as (
    select
        genre_id,
        {{ name_or_number('genre_name', 'Unnamed genre', 'genre_id') }}
            as genre_name
    from genre_names

    union all

    select
        cast(null as bigint) as genre_id,
        '{{ unknown_name() }}' as genre_name
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
