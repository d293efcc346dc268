{#- chosen in view of all labelled releases: see dbt_project.yml -#}
{%- set bounds = var('brand_match') -%}

with releases as (
    select * from {{ ref('int_brand_releases__unioned') }}
),

scored as (
    select * from {{ ref('int_brand_releases__scored') }}
),

corrections as (
    select * from {{ ref('brand_match_corrections') }}
),

movies as (
    select * from {{ ref('int_movies__checked') }}
),

candidate_counts as (
    select
        brand_release_key,
        count(*) as candidate_count
    from scored
    group by brand_release_key
),

-- first round: a film that two releases of a brand want goes to the one that
-- it fits better; a re-release takes nothing away
first_ranked as (
    select
        *,
        row_number() over (
            partition by brand_release_key
            order by score desc, movie_id asc
        ) as release_choice,
        row_number() over (
            partition by
                brand_name,
                movie_id,
                release_source,
                case when rerelease_year is null then 0 else 1 end
            order by score desc, list_position asc
        ) as movie_choice
    from scored
),

taken as (
    select
        brand_release_key,
        brand_name,
        release_source,
        movie_id
    from first_ranked
    where
        release_choice = 1
        and movie_choice = 1
        and rerelease_year is null
),

-- second round: what is left to the releases that went without
open_candidates as (
    select scored.*
    from scored
    left join taken
        on
            scored.brand_name = taken.brand_name
            and scored.release_source = taken.release_source
            and scored.movie_id = taken.movie_id
            and scored.rerelease_year is null
    where
        taken.movie_id is null
        or taken.brand_release_key = scored.brand_release_key
),

second_ranked as (
    select
        *,
        row_number() over (
            partition by brand_release_key
            order by score desc, movie_id asc
        ) as release_choice,
        score - lead(score) over (
            partition by brand_release_key
            order by score desc, movie_id asc
        ) as score_lead
    from open_candidates
),

best as (
    select * from second_ranked
    where release_choice = 1
),

decided as (
    select
        releases.brand_release_key,
        releases.brand_name,
        releases.list_position,
        releases.release_title,
        releases.release_source,
        releases.is_top_release,
        releases.gross_usd,
        best.match_rule,
        best.score,
        best.score_lead,
        -- a film set by hand counts once it is in the catalogue
        case
            when corrections.brand_name is not null then movies.movie_id
            else best.movie_id
        end as best_movie_id,
        coalesce(candidate_counts.candidate_count, 0) as candidate_count,
        case
            when corrections.brand_name is not null
                then
                    case
                        when movies.movie_id is null then 'no_film_by_hand'
                        else 'set_by_hand'
                    end
            when candidate_counts.candidate_count is null
                then 'no_film_of_this_title'
            when best.movie_id is null then 'taken_by_another_release'
            when best.score < {{ bounds.least_score }} then 'evidence_against'
            when best.score_lead < {{ bounds.least_lead }}
                then 'rivals_too_close'
            when best.score_lead is null then 'only_candidate'
            else 'best_score'
        end as match_reason
    from releases
    left join candidate_counts
        on releases.brand_release_key = candidate_counts.brand_release_key
    left join best on releases.brand_release_key = best.brand_release_key
    left join corrections
        on
            releases.brand_name = corrections.brand_name
            and releases.list_position = corrections.list_position
            and releases.release_title = corrections.release_title
    left join movies on corrections.movie_id = movies.movie_id
),

statuses as (
    select
        *,
        case
            when match_reason in ('only_candidate', 'best_score', 'set_by_hand')
                then 'matched'
            when match_reason = 'rivals_too_close' then 'ambiguous'
            else 'unmatched'
        end as match_status
    from decided
),

final as (
    select
        brand_release_key,
        brand_name,
        list_position,
        release_title,
        release_source,
        is_top_release,
        gross_usd,
        match_status,
        match_reason,
        match_rule,
        score,
        score_lead,
        candidate_count,
        case when match_status = 'matched' then best_movie_id end as movie_id,
        match_status = 'matched' as is_matched
    from statuses
)

select * from final
