-- Of the films, at most the share that the variable films_max_rejected_share
-- allows have a rejected value of one field: with more, rules and data do not
-- fit, and the column would be null without a word. One film alone never fails
-- a build. One row per field and reason, with what to do about it.
{{ config(meta={'says': 'message'}) }}

with movies as (
    select * from {{ ref('stg_tmdb__movies') }}
),

rejected as (
    select * from {{ ref('rejected_movie_values') }}
    where is_current
),

pulled as (
    select count(*) as movie_count
    from movies
),

fields as (
    select
        -- entries of a list are called genres[0].name and so on
        {{ dbt.split_part('field_name', "'['", 1) }} as field_name,
        reason_code,
        count(distinct movie_id) as rejected_count
    from rejected
    group by {{ dbt.split_part('field_name', "'['", 1) }}, reason_code
),

final as (
    select
        fields.field_name,
        fields.reason_code,
        fields.rejected_count,
        pulled.movie_count,
        {{ dbt.concat([
            "fields.field_name",
            "': '",
            "cast(fields.rejected_count as " ~ dbt.type_string() ~ ")",
            "' of '",
            "cast(pulled.movie_count as " ~ dbt.type_string() ~ ")",
            "' films are rejected '",
            "fields.reason_code",
            "'. Look at them with: marquee rejects show --source tmdb.'",
            "' If they are right, move the limit in dbt_project.yml, or raise'",
            "' films_max_rejected_share there, then: dbt build'",
        ]) }} as message
    from fields
    cross join pulled
    where
        fields.rejected_count > 1
        and fields.rejected_count
        > pulled.movie_count
        * cast({{ var('films_max_rejected_share') }} as numeric(9, 8))
)

select * from final
order by rejected_count desc
