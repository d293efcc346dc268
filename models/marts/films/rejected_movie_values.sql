-- Grain: one row per value of TMDB that cannot be right, and pull. Counts add
-- up. is_current says that it is still so; what TMDB has corrected since stays.
with rejected as (
    select * from {{ ref('int_movie_values__rejected') }}
),

movies as (
    select * from {{ ref('int_movies__checked') }}
),

final as (
    select
        rejected.request_path,
        rejected.field_name,
        {{ dbt_utils.generate_surrogate_key(['movies.movie_id']) }}
            as movie_key,
        rejected.movie_id,
        rejected.reason_code,
        rejected.raw_text,
        rejected.pulled_at,
        rejected.is_current
    from rejected
    left join movies on rejected.movie_id = movies.movie_id
)

select * from final
