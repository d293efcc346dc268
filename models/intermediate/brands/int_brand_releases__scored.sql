{{ config(materialized='table') }}

{#- what each piece of evidence weighs: see dbt_project.yml -#}
{%- set weights = var('brand_match') -%}

with possible as (
    select * from {{ ref('int_brand_releases__possible') }}
),

expected as (
    select * from {{ ref('int_brand_releases__expected_gross') }}
),

affinities as (
    select * from {{ ref('int_brand_releases__company_affinities') }}
),

eras as (
    select * from {{ ref('int_brand_releases__era_fits') }}
),

evidence as (
    select
        possible.*,
        expected.expected_log_gross,
        coalesce(eras.era_fit, {{ weights.usual_era_fit }}) as era_fit,
        coalesce(affinities.company_affinity, 0) as company_affinity,
        ln(possible.estimated_gross_usd)
        - expected.expected_log_gross as gross_surplus
    from possible
    inner join expected
        on possible.brand_release_key = expected.brand_release_key
    left join affinities
        on
            possible.brand_release_key = affinities.brand_release_key
            and possible.movie_id = affinities.movie_id
    left join eras
        on
            possible.brand_release_key = eras.brand_release_key
            and possible.movie_id = eras.movie_id
),

-- log-odds that this is the film
weighed as (
    select
        *,
        {{ weights.constant }}
        + {{ weights.votes }} * ln(1 + vote_count) / ln(10)
        + {{ weights.company_affinity }} * company_affinity
        + {{ weights.era_fit }} * era_fit
        + {{ weights.title_cost }} * title_cost
        + {{ weights.rivals }} * ln(rival_count)
        + case
            when gross_surplus is null then {{ weights.surplus_unknown }}
            when gross_surplus > 0
                then {{ weights.surplus_above }} * least(gross_surplus, 4)
            else {{ weights.surplus_below }} * least(-gross_surplus, 5)
        end as score
    from evidence
),

final as (
    select
        brand_release_key,
        brand_name,
        list_position,
        release_title,
        release_source,
        rerelease_year,
        movie_id,
        match_rule,
        title_cost,
        title,
        release_date,
        vote_count,
        estimated_gross_usd,
        rival_count,
        cast(exp(expected_log_gross) as numeric(20, 2)) as expected_gross_usd,
        cast(company_affinity as numeric(6, 4)) as company_affinity,
        cast(era_fit as numeric(6, 4)) as era_fit,
        cast(score as numeric(8, 4)) as score
    from weighed
)

select * from final
