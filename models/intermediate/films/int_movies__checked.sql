with movies as (
    select * from {{ ref('stg_tmdb__movies') }}
),

removed_movies as (
    select * from {{ ref('stg_tmdb__removed_movies') }}
),

-- apart from movies, which PostgreSQL reads with one process where it is used
-- twice
pulls as (
    select
        movie_id,
        pulled_at
    from {{ ref('stg_tmdb__movies') }}
),

-- since its last pull: a film that came back has been pulled after that
removals as (
    select
        pulls.movie_id,
        min(removed_movies.asked_at) as removed_at
    from pulls
    inner join removed_movies
        on
            pulls.movie_id = removed_movies.movie_id
            and pulls.pulled_at < removed_movies.asked_at
    group by pulls.movie_id
),

final as (
    select
        movies.movie_id,
        movies.collection_id,
        movies.dlt_id,
        {{ title_or_number(
            'movies.title', 'movies.original_title', 'movies.movie_id'
        ) }} as title,
        {{ sound_value('movies.imdb_id') }} as imdb_id,
        {{ sound_value('movies.original_title') }} as original_title,
        {{ sound_value('movies.original_language') }} as original_language,
        {{ sound_value('movies.status') }} as status,
        {{ sound_value('movies.collection_name') }} as collection_name,
        {{ sound_value('movies.runtime_minutes') }} as runtime_minutes,
        {{ sound_value('movies.budget_usd') }} as budget_usd,
        {{ sound_value('movies.revenue_usd') }} as revenue_usd,
        {{ sound_value('movies.popularity') }} as popularity,
        {{ sound_value('movies.vote_average') }} as vote_average,
        {{ sound_value('movies.vote_count') }} as vote_count,
        movies.is_adult,
        movies.is_video,
        {{ sound_value('movies.release_date') }} as release_date,
        movies.pulled_at,
        removals.removed_at is not null as is_removed,
        removals.removed_at
    from movies
    left join removals on movies.movie_id = removals.movie_id
)

select * from final
