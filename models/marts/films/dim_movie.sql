with movies as (
    select * from {{ ref('stg_tmdb__movies') }}
),

described as (
    select
        {{ dbt_utils.generate_surrogate_key(['movie_id']) }} as movie_key,
        movie_id,
        imdb_id,
        title,
        original_title,
        original_language,
        status,
        release_date,
        {{ date_key('release_date') }} as release_date_key,
        runtime_minutes,
        budget_usd,
        revenue_usd,
        collection_id,
        collection_name,
        popularity,
        vote_average,
        vote_count,
        is_adult,
        is_video,
        pulled_at,
        false as is_unknown
    from movies
),

unknown_member as (
    select
        {{ dbt_utils.generate_surrogate_key(['cast(null as bigint)']) }}
            as movie_key,
        cast(null as bigint) as movie_id,
        cast(null as {{ dbt.type_string() }}) as imdb_id,
        'Unknown' as title,
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
        true as is_unknown
),

final as (
    select * from described
    union all
    select * from unknown_member
)

select * from final
