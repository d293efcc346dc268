{{ config(materialized='table') }}

{#- chosen in view of all labelled releases: see dbt_project.yml -#}
{%- set bounds = var('brand_match') -%}

with releases as (
    select * from {{ ref('int_brand_releases__unioned') }}
),

scored as (
    select * from {{ ref('int_brand_releases__scored') }}
    where not is_rerelease
),

-- first round: a film that two releases of a brand want goes to the one that
-- it fits better
first_ranked as (
    select
        *,
        row_number() over (
            partition by brand_release_key
            order by score desc, movie_id asc
        ) as release_choice,
        row_number() over (
            partition by brand_name, movie_id, release_source
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
    select
        second_ranked.*,
        releases.bare_title_key
    from second_ranked
    inner join releases
        on second_ranked.brand_release_key = releases.brand_release_key
    where second_ranked.release_choice = 1
),

-- other releases of the same title that want the film and have no other
left_out as (
    select
        scored.brand_name,
        scored.release_source,
        scored.movie_id,
        releases.bare_title_key,
        max(scored.score) as score
    from scored
    inner join releases
        on scored.brand_release_key = releases.brand_release_key
    left join best
        on
            scored.brand_release_key = best.brand_release_key
            and best.score >= {{ bounds.least_score }}
    where
        best.brand_release_key is null
        and releases.release_note is null
    group by
        scored.brand_name,
        scored.release_source,
        scored.movie_id,
        releases.bare_title_key
),

reasoned as (
    select
        best.*,
        case
            when best.score < {{ bounds.least_score }} then 'evidence_against'
            when
                best.score_lead < {{ bounds.least_lead }}
                or best.score - left_out.score < {{ bounds.least_twin_lead }}
                then 'rivals_too_close'
            when best.score_lead is null then 'only_candidate'
            else 'best_score'
        end as match_reason
    from best
    left join left_out
        on
            best.brand_name = left_out.brand_name
            and best.release_source = left_out.release_source
            and best.movie_id = left_out.movie_id
            and best.bare_title_key = left_out.bare_title_key
),

-- one title twice in a list: the list's order is that of the gross
twins as (
    select
        *,
        row_number() over (
            partition by brand_name, release_source, bare_title_key
            order by list_position
        ) as place,
        row_number() over (
            partition by brand_name, release_source, bare_title_key
            order by estimated_gross_usd desc, movie_id asc
        ) as gross_place,
        lag(estimated_gross_usd) over (
            partition by brand_name, release_source, bare_title_key
            order by estimated_gross_usd desc, movie_id asc
        ) / estimated_gross_usd as gross_ratio
    from reasoned
    where match_reason in ('best_score', 'only_candidate')
),

told_apart as (
    select
        *,
        min(gross_ratio) over (
            partition by brand_name, release_source, bare_title_key
        ) as least_gross_ratio
    from twins
),

ordered as (
    select
        told_apart.brand_release_key,
        films.movie_id
    from told_apart
    inner join told_apart as films
        on
            told_apart.brand_name = films.brand_name
            and told_apart.release_source = films.release_source
            and told_apart.bare_title_key = films.bare_title_key
            and told_apart.place = films.gross_place
    where
        told_apart.least_gross_ratio >= {{ bounds.least_twin_ratio }}
        and told_apart.movie_id != films.movie_id
),

final as (
    select
        reasoned.brand_release_key,
        reasoned.brand_name,
        reasoned.release_source,
        coalesce(scored.movie_id, reasoned.movie_id) as movie_id,
        coalesce(scored.match_rule, reasoned.match_rule) as match_rule,
        coalesce(scored.score, reasoned.score) as score,
        case
            when scored.movie_id is null then reasoned.score_lead
        end as score_lead,
        case
            when scored.movie_id is not null then 'order_of_the_list'
            else reasoned.match_reason
        end as match_reason,
        reasoned.match_reason in ('best_score', 'only_candidate') as is_found
    from reasoned
    left join ordered
        on reasoned.brand_release_key = ordered.brand_release_key
    left join scored
        on
            ordered.brand_release_key = scored.brand_release_key
            and ordered.movie_id = scored.movie_id
)

select * from final
