-- Grain: one row per version of a film, and one for the unknown film. A version
-- holds from valid_from up to, but not including, valid_to; the current one has
-- no end. What changes daily (popularity, votes) is in fct_movie_metrics.
with versions as (
    select * from {{ ref('snp_tmdb__movies') }}
    -- one that ended as it began was read otherwise by a later version of the
    -- project, not said otherwise by TMDB
    where
        dbt_valid_to is null
        or dbt_valid_to > dbt_valid_from
),

movies as (
    select * from {{ ref('int_movies__checked') }}
),

described as (
    select
        {{ dbt_utils.generate_surrogate_key([
            'versions.movie_id', 'versions.dbt_valid_from'
        ]) }} as movie_history_key,
        -- versions of a film that is gone from the catalogue stay, unattached
        {{ dbt_utils.generate_surrogate_key(['movies.movie_id']) }}
            as movie_key,
        versions.movie_id,
        cast(row_number() over (
            partition by versions.movie_id
            order by versions.dbt_valid_from
        ) as integer) as version_number,
        -- what no film can be may stand in a version that is over
        {{ title_or_number(
            'versions.title', 'versions.original_title', 'versions.movie_id'
        ) }} as title,
        {{ sound_value('versions.original_title') }} as original_title,
        {{ sound_value('versions.original_language') }} as original_language,
        {{ sound_value('versions.status') }} as status,
        {{ sound_value('versions.release_date') }} as release_date,
        {{ sound_value('versions.runtime_minutes') }}
            as runtime_minutes,
        {{ sound_value('versions.budget_usd') }}
            as budget_usd,
        {{ sound_value('versions.revenue_usd') }}
            as revenue_usd,
        versions.collection_id,
        {{ sound_value('versions.collection_name') }} as collection_name,
        versions.dbt_valid_from as valid_from,
        versions.dbt_valid_to as valid_to,
        versions.dbt_valid_to is null as is_current,
        false as is_unknown
    from versions
    left join movies on versions.movie_id = movies.movie_id
),

unknown_member as (
    select
        {{ dbt_utils.generate_surrogate_key([
            'cast(null as bigint)', 'cast(null as timestamp)'
        ]) }} as movie_history_key,
        {{ dbt_utils.generate_surrogate_key(['cast(null as bigint)']) }}
            as movie_key,
        cast(null as bigint) as movie_id,
        1 as version_number,
        '{{ unknown_name() }}' as title,
        cast(null as {{ dbt.type_string() }}) as original_title,
        cast(null as {{ dbt.type_string() }}) as original_language,
        cast(null as {{ dbt.type_string() }}) as status,
        cast(null as date) as release_date,
        cast(null as bigint) as runtime_minutes,
        cast(null as bigint) as budget_usd,
        cast(null as bigint) as revenue_usd,
        cast(null as bigint) as collection_id,
        cast(null as {{ dbt.type_string() }}) as collection_name,
        -- before the first film
        cast('1870-01-01' as timestamp) as valid_from,
        cast(null as timestamp) as valid_to,
        true as is_current,
        true as is_unknown
),

final as (
    select * from described
    union all
    select * from unknown_member
)

select * from final
