with movies as (
    select * from {{ ref('int_movies__checked') }}
),

versions as (
    select * from {{ ref('dim_movie_history') }}
),

current_versions as (
    select * from versions
    where
        is_current
        and not is_unknown
),

unknown_versions as (
    select * from versions
    where is_unknown
),

described as (
    select
        {{ dbt_utils.generate_surrogate_key(['movies.movie_id']) }}
            as movie_key,
        -- a film that no snapshot has seen yet has the unknown version
        coalesce(
            current_versions.movie_history_key,
            unknown_versions.movie_history_key
        ) as movie_history_key,
        movies.movie_id,
        movies.imdb_id,
        movies.title,
        movies.original_title,
        movies.original_language,
        movies.status,
        movies.release_date,
        {{ date_key('movies.release_date') }} as release_date_key,
        movies.runtime_minutes,
        movies.budget_usd,
        movies.revenue_usd,
        movies.collection_id,
        movies.collection_name,
        movies.popularity,
        movies.vote_average,
        movies.vote_count,
        movies.is_adult,
        movies.is_video,
        movies.pulled_at,
        movies.is_removed,
        movies.removed_at,
        false as is_unknown
    from movies
    cross join unknown_versions
    left join current_versions
        on movies.movie_id = current_versions.movie_id
),

unknown_member as (
    select
        {{ dbt_utils.generate_surrogate_key(['cast(null as bigint)']) }}
            as movie_key,
        movie_history_key,
        cast(null as bigint) as movie_id,
        cast(null as {{ dbt.type_string() }}) as imdb_id,
        '{{ unknown_name() }}' as title,
        cast(null as {{ dbt.type_string() }}) as original_title,
        cast(null as {{ dbt.type_string() }}) as original_language,
        cast(null as {{ dbt.type_string() }}) as status,
        cast(null as date) as release_date,
        0 as release_date_key,
        cast(null as bigint) as runtime_minutes,
        cast(null as bigint) as budget_usd,
        cast(null as bigint) as revenue_usd,
        cast(null as bigint) as collection_id,
        cast(null as {{ dbt.type_string() }}) as collection_name,
        cast(null as numeric(18, 6)) as popularity,
        cast(null as numeric(6, 3)) as vote_average,
        cast(null as bigint) as vote_count,
        false as is_adult,
        false as is_video,
        cast(null as timestamp) as pulled_at,
        false as is_removed,
        cast(null as timestamp) as removed_at,
        true as is_unknown
    from unknown_versions
),

final as (
    select * from described
    union all
    select * from unknown_member
)

select * from final
