{{ config(materialized='table') }}

{#- chosen in view of all labelled releases: see dbt_project.yml -#}
{%- set bounds = var('brand_match') -%}

with releases as (
    select * from {{ ref('int_brand_releases__unioned') }}
),

scored as (
    select * from {{ ref('int_brand_releases__scored') }}
),

originals as (
    select * from {{ ref('int_brand_releases__originals') }}
    where is_found
),

movies as (
    select * from {{ ref('int_movies__checked') }}
),

corrections as (
    select * from {{ ref('brand_match_corrections') }}
),

-- the film of each release that is none of a re-release, or none
first_releases as (
    select
        releases.brand_release_key,
        releases.brand_name,
        releases.release_source,
        releases.bare_title_key,
        case
            when corrections.brand_name is not null then movies.movie_id
            else originals.movie_id
        end as movie_id
    from releases
    left join originals
        on releases.brand_release_key = originals.brand_release_key
    left join corrections
        on
            releases.brand_name = corrections.brand_name
            and releases.list_position = corrections.list_position
            and releases.release_title = corrections.release_title
    left join movies on corrections.movie_id = movies.movie_id
    where
        not releases.is_noted
        or originals.brand_release_key is not null
),

brand_movies as (
    select
        brand_name,
        movie_id
    from first_releases
    where movie_id is not null
    group by brand_name, movie_id
),

-- its first release in the same list
with_original as (
    select
        releases.brand_release_key,
        releases.brand_name,
        releases.release_source,
        first_releases.movie_id
    from releases
    inner join first_releases
        on
            releases.brand_name = first_releases.brand_name
            and releases.release_source = first_releases.release_source
            and releases.bare_title_key = first_releases.bare_title_key
            and releases.brand_release_key != first_releases.brand_release_key
    where releases.release_note is not null
),

originals_films as (
    select
        brand_release_key,
        movie_id
    from with_original
    group by brand_release_key, movie_id
),

titled as (
    select
        brand_release_key,
        movie_id
    from scored
    where is_rerelease
),

-- candidates as re-releases, and the originals' films that no title leads to
candidates as (
    select
        brand_release_key,
        brand_name,
        release_source,
        movie_id,
        match_rule,
        title_cost,
        score
    from scored
    where is_rerelease

    union all

    select
        with_original.brand_release_key,
        with_original.brand_name,
        with_original.release_source,
        with_original.movie_id,
        null as match_rule,
        null as title_cost,
        null as score
    from with_original
    left join titled
        on
            with_original.brand_release_key = titled.brand_release_key
            and with_original.movie_id = titled.movie_id
    where
        with_original.movie_id is not null
        and titled.movie_id is null
    group by
        with_original.brand_release_key,
        with_original.brand_name,
        with_original.release_source,
        with_original.movie_id
),

originals_counted as (
    select
        brand_release_key,
        count(*) as original_count
    from with_original
    group by brand_release_key
),

-- that film, or none; without such a release, the film of the very title, or
-- one of the brand
weighed as (
    select
        candidates.*,
        with_original.movie_id is not null as is_of_original,
        originals_counted.original_count is not null as has_original,
        originals_counted.original_count is null
        and (
            candidates.title_cost <= {{ bounds.most_rerelease_cost }}
            or brand_movies.movie_id is not null
        ) as is_near
    from candidates
    left join first_releases
        on candidates.brand_release_key = first_releases.brand_release_key
    left join brand_movies
        on
            candidates.brand_name = brand_movies.brand_name
            and candidates.movie_id = brand_movies.movie_id
    left join originals_counted
        on candidates.brand_release_key = originals_counted.brand_release_key
    left join originals_films as with_original
        on
            candidates.brand_release_key = with_original.brand_release_key
            and candidates.movie_id = with_original.movie_id
    where first_releases.movie_id is null
),

ranked as (
    select
        *,
        row_number() over (
            partition by brand_release_key
            order by
                case when is_of_original or is_near then 0 else 1 end asc,
                score desc nulls last,
                movie_id asc
        ) as release_choice,
        score - lead(score) over (
            partition by
                brand_release_key,
                case when is_of_original or is_near then 0 else 1 end
            order by score desc nulls last, movie_id asc
        ) as score_lead
    from weighed
),

reasoned as (
    select
        *,
        case
            when is_of_original then 'film_of_its_original'
            when has_original then 'original_without_film'
            when not is_near then 'title_too_loose'
            when score < {{ bounds.least_score }} then 'evidence_against'
            when score_lead < {{ bounds.least_lead }} then 'rivals_too_close'
            when score_lead is null then 'only_candidate'
            else 'best_score'
        end as match_reason
    from ranked
    where release_choice = 1
),

final as (
    select
        brand_release_key,
        brand_name,
        release_source,
        movie_id,
        match_rule,
        score,
        score_lead,
        match_reason,
        match_reason in (
            'film_of_its_original', 'only_candidate', 'best_score'
        ) as is_found
    from reasoned
)

select * from final
