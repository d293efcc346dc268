{{ config(materialized='table') }}

{#- what one neighbour either side says is noise; four are a picture -#}
{%- set neighbours = 4 -%}
{#- a brand's films come in waves; logarithm of the share of them that is
    usually near, for where nothing is known -#}
{%- set near_years = 3 -%}
{%- set usual_era_fit = -1.2 -%}

with candidates as (
    select * from {{ ref('int_brand_releases__candidates') }}
),

listed_companies as (
    select * from {{ ref('stg_tmdb__movie_companies') }}
),

releases as (
    select * from {{ ref('int_brand_releases__unioned') }}
),

-- of the few films that matter: all films' companies would be far more rows
movie_companies as (
    select
        candidates.movie_id,
        listed_companies.company_id
    from candidates
    inner join listed_companies
        on candidates.movie_dlt_id = listed_companies.movie_dlt_id
    group by candidates.movie_id, listed_companies.company_id
),

-- releases that leave no doubt: printed as TMDB titles it, and no rival comes
-- near. They say what the brand's other films look like.
by_votes as (
    select
        brand_release_key,
        movie_id,
        release_date,
        estimated_gross_usd,
        vote_count,
        lead(vote_count) over (
            partition by brand_release_key
            order by vote_count desc, movie_id asc
        ) as rival_vote_count,
        row_number() over (
            partition by brand_release_key
            order by vote_count desc, movie_id asc
        ) as vote_rank
    from candidates
    where
        title_cost <= 0.3
        and rerelease_year is null
),

anchors as (
    select
        brand_release_key,
        movie_id,
        release_date,
        estimated_gross_usd
    from by_votes
    where
        vote_rank = 1
        and vote_count >= 50
        and coalesce(rival_vote_count, 0) <= 0.1 * vote_count
),

-- a brand's list is ordered by gross: neighbours tell what a release grossed
neighbourhood as (
    select
        releases.brand_release_key,
        releases.brand_name,
        releases.gross_usd,
        releases.rerelease_year,
        anchors.movie_id as anchor_movie_id,
        sum(ln(anchors.estimated_gross_usd)) over (
            partition by releases.brand_name
            order by releases.list_position
            rows between {{ neighbours }} preceding and 1 preceding
        ) as sum_above,
        count(ln(anchors.estimated_gross_usd)) over (
            partition by releases.brand_name
            order by releases.list_position
            rows between {{ neighbours }} preceding and 1 preceding
        ) as count_above,
        sum(ln(anchors.estimated_gross_usd)) over (
            partition by releases.brand_name
            order by releases.list_position
            rows between 1 following and {{ neighbours }} following
        ) as sum_below,
        count(ln(anchors.estimated_gross_usd)) over (
            partition by releases.brand_name
            order by releases.list_position
            rows between 1 following and {{ neighbours }} following
        ) as count_below
    from releases
    left join anchors
        on releases.brand_release_key = anchors.brand_release_key
),

expected as (
    select
        brand_release_key,
        brand_name,
        anchor_movie_id,
        case
            when rerelease_year is not null then null
            when gross_usd > 0 then ln(gross_usd)
            when count_above + count_below >= 2
                then
                    (coalesce(sum_above, 0) + coalesce(sum_below, 0))
                    / (count_above + count_below)
        end as expected_log_gross
    from neighbourhood
),

-- a list cannot name a film that came out after it was written, which was soon
-- after the newest of its certain films; one in a hundred may be mistaken
anchors_by_age as (
    select
        anchors.release_date,
        row_number() over (order by anchors.release_date desc) as newness,
        count(*) over () as anchor_count
    from anchors
    inner join releases
        on anchors.brand_release_key = releases.brand_release_key
    where
        releases.release_source = 'release_list'
        and anchors.release_date is not null
),

list_ends as (
    select {{ dbt.dateadd('month', 6, 'max(release_date)') }} as list_ended_at
    from anchors_by_age
    where newness > 0.01 * anchor_count
),

-- how often a company stands behind the brand's certain films
brand_anchors as (
    select
        brand_name,
        count(distinct anchor_movie_id) as anchor_count
    from expected
    group by brand_name
),

brand_companies as (
    select
        expected.brand_name,
        movie_companies.company_id,
        count(distinct expected.anchor_movie_id) as film_count
    from expected
    inner join movie_companies
        on expected.anchor_movie_id = movie_companies.movie_id
    group by expected.brand_name, movie_companies.company_id
),

brand_films as (
    select distinct
        releases.brand_name,
        anchors.movie_id,
        anchors.release_date
    from anchors
    inner join releases
        on anchors.brand_release_key = releases.brand_release_key
),

-- a film does not speak for itself
affinities as (
    select
        candidates.brand_release_key,
        candidates.movie_id,
        max(
            (
                brand_companies.film_count
                - case when brand_films.movie_id is not null then 1 else 0 end
            ) * 1.0
            / nullif(
                brand_anchors.anchor_count
                - case when brand_films.movie_id is not null then 1 else 0 end,
                0
            )
        ) as company_affinity
    from candidates
    inner join movie_companies
        on candidates.movie_id = movie_companies.movie_id
    inner join brand_companies
        on
            candidates.brand_name = brand_companies.brand_name
            and movie_companies.company_id = brand_companies.company_id
    inner join brand_anchors
        on candidates.brand_name = brand_anchors.brand_name
    left join brand_films
        on
            candidates.brand_name = brand_films.brand_name
            and candidates.movie_id = brand_films.movie_id
    group by candidates.brand_release_key, candidates.movie_id
),

-- a brand's films come out while there is the brand; its certain films tell
-- when that was, and a re-release says nothing of it
eras as (
    select
        candidates.brand_release_key,
        candidates.movie_id,
        count(*) as other_film_count,
        count(
            case
                when
                    abs(
                        extract(year from candidates.release_date)
                        - extract(year from brand_films.release_date)
                    ) <= {{ near_years }}
                    then 1
            end
        ) as near_film_count
    from candidates
    inner join brand_films
        on
            candidates.brand_name = brand_films.brand_name
            and candidates.movie_id != brand_films.movie_id
    where
        candidates.rerelease_year is null
        and candidates.release_date is not null
        and brand_films.release_date is not null
    group by candidates.brand_release_key, candidates.movie_id
),

evidence as (
    select
        candidates.*,
        expected.expected_log_gross,
        coalesce(
            -- as if two more films were known, a tenth of them near
            ln((eras.near_film_count + 0.2) / (eras.other_film_count + 2)),
            {{ usual_era_fit }}
        ) as era_fit,
        coalesce(affinities.company_affinity, 0) as company_affinity,
        ln(candidates.estimated_gross_usd)
        - expected.expected_log_gross as gross_surplus
    from candidates
    inner join expected
        on candidates.brand_release_key = expected.brand_release_key
    cross join list_ends
    left join affinities
        on
            candidates.brand_release_key = affinities.brand_release_key
            and candidates.movie_id = affinities.movie_id
    left join eras
        on
            candidates.brand_release_key = eras.brand_release_key
            and candidates.movie_id = eras.movie_id
    where
        -- a film cannot come back before it came
        (
            candidates.rerelease_year is null
            or candidates.release_date is null
            or candidates.rerelease_year
            >= cast(extract(year from candidates.release_date) as integer)
        )
        and (
            -- what the index names is as new as the index
            candidates.gross_usd is not null
            or candidates.release_source != 'release_list'
            or candidates.release_date is null
            or list_ends.list_ended_at is null
            or candidates.release_date <= list_ends.list_ended_at
        )
),

-- films that a reading about as strict leads to as well
rivals as (
    select
        evidence.brand_release_key,
        evidence.movie_id,
        count(*) as rival_count
    from evidence
    inner join evidence as other_films
        on
            evidence.brand_release_key = other_films.brand_release_key
            and other_films.title_cost <= evidence.title_cost + 0.3
    group by evidence.brand_release_key, evidence.movie_id
),

final as (
    select
        evidence.brand_release_key,
        evidence.brand_name,
        evidence.list_position,
        evidence.release_title,
        evidence.release_source,
        evidence.rerelease_year,
        evidence.movie_id,
        evidence.match_rule,
        evidence.title_cost,
        evidence.title,
        evidence.release_date,
        evidence.vote_count,
        evidence.estimated_gross_usd,
        rivals.rival_count,
        cast(exp(evidence.expected_log_gross) as numeric(20, 2))
            as expected_gross_usd,
        cast(evidence.company_affinity as numeric(6, 4)) as company_affinity,
        cast(evidence.era_fit as numeric(6, 4)) as era_fit,
        -- log-odds that this is the film; weights by logistic regression on
        -- labelled releases, rounded: make bench-match prints them anew
        cast(
            2.4
            + 0.7 * ln(1 + evidence.vote_count) / ln(10)
            + 2.3 * evidence.company_affinity
            + 0.7 * evidence.era_fit
            - 3.1 * evidence.title_cost
            - 2.1 * ln(rivals.rival_count)
            - case
                when evidence.gross_surplus is null then 1.3
                when evidence.gross_surplus > 4 then 1.1 * 4
                when evidence.gross_surplus > 0
                    then 1.1 * evidence.gross_surplus
                when evidence.gross_surplus < -5 then 1.1 * 5
                else -1.1 * evidence.gross_surplus
            end
            as numeric(8, 4)
        ) as score
    from evidence
    inner join rivals
        on
            evidence.brand_release_key = rivals.brand_release_key
            and evidence.movie_id = rivals.movie_id
)

select * from final
