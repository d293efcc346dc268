{{ config(materialized='table') }}

with movies as (
    select * from {{ ref('stg_tmdb__movies') }}
),

movie_metrics as (
    select * from {{ ref('stg_tmdb__movie_metrics') }}
),

movie_genres as (
    select * from {{ ref('stg_tmdb__movie_genres') }}
),

movie_companies as (
    select * from {{ ref('stg_tmdb__movie_companies') }}
),

rejects as (
    select * from {{ ref('stg_tmdb__rejects') }}
),

-- values that landed and break a rule
broken as (
    {% for field, column, _, _ in movie_value_rules() %}
    select
        movie_id,
        pulled_at,
        '{{ field }}' as field_name,
        {{ broken_rule(column) }} as reason_code,
        cast({{ column }} as {{ dbt.type_string() }}) as raw_text
    from movies
    where {{ broken_rule(column) }} is not null
    union all
    {% endfor %}
    {% for field, column, _, _ in movie_metric_rules() %}
    select
        movie_id,
        pulled_at,
        '{{ field }}' as field_name,
        {{ broken_rule(column) }} as reason_code,
        cast({{ column }} as {{ dbt.type_string() }}) as raw_text
    from movie_metrics
    where {{ broken_rule(column) }} is not null
    union all
    {% endfor %}
    {% for entries, list, number, name in [
        ('movie_genres', 'genres', 'genre_id', 'genre_name'),
        ('movie_companies', 'production_companies', 'company_id', 'company_name'),
    ] %}
    select
        movies.movie_id,
        movies.pulled_at,
        {{ dbt.concat([
            "'" ~ list ~ "['",
            "cast(" ~ entries ~ ".list_position - 1 as " ~ dbt.type_string() ~ ")",
            "case when " ~ entries ~ "." ~ number ~ " is null and "
            ~ entries ~ "." ~ name ~ " is null then ']' when " ~ entries ~ "."
            ~ number ~ " is null then '].id' else '].name' end"
        ]) }} as field_name,
        coalesce(
            case when {{ entries }}.{{ number }} is null then 'missing' end,
            {{ broken_rule(entries ~ "." ~ name, 'name') }}
        ) as reason_code,
        {{ entries }}.{{ name }} as raw_text
    from {{ entries }}
    inner join movies on {{ entries }}.movie_id = movies.movie_id
    where
        {{ entries }}.{{ number }} is null
        or {{ broken_rule(entries ~ "." ~ name, 'name') }} is not null
    {% if not loop.last %}union all{% endif %}
    {% endfor %}
),

-- and values that landing put aside, or saw to break one
unioned as (
    select
        request_path,
        field_name,
        movie_id,
        reason_code,
        raw_text,
        pulled_at,
        0 as place
    from rejects

    union all

    select
        {{ dbt.concat([
            "'/movie/'", "cast(movie_id as " ~ dbt.type_string() ~ ")"
        ]) }} as request_path,
        field_name,
        movie_id,
        reason_code,
        left(raw_text, 10000) as raw_text,
        pulled_at,
        1 as place
    from broken
),

ranked as (
    select
        *,
        row_number() over (
            partition by request_path, field_name, pulled_at
            order by place asc, reason_code asc
        ) as precedence
    from unioned
),

latest as (
    select max(pulled_at) as pulled_at from movie_metrics
),

final as (
    select
        ranked.request_path,
        ranked.field_name,
        ranked.movie_id,
        ranked.reason_code,
        ranked.raw_text,
        ranked.pulled_at,
        -- a list is asked for at each pull, a film when it has changed
        coalesce(
            ranked.pulled_at >= coalesce(movies.pulled_at, latest.pulled_at),
            true
        ) as is_current
    from ranked
    cross join latest
    left join movies on ranked.movie_id = movies.movie_id
    where ranked.precedence = 1
)

select * from final
