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

persons as (
    select * from {{ ref('int_brand_releases__person_affinities') }}
),

languages as (
    select * from {{ ref('int_brand_releases__language_fits') }}
),

certain as (
    select * from {{ ref('int_brand_releases__certain') }}
),

eras as (
    select * from {{ ref('int_brand_releases__era_fits') }}
),

-- how much the films of a brand have their companies, and their authors as far
-- as these are known, in common
usual_affinities as (
    select
        certain.brand_name,
        avg(coalesce(affinities.company_affinity, 0)) as usual_affinity,
        avg(persons.person_affinity) as usual_person_affinity
    from certain
    left join affinities
        on
            certain.brand_release_key = affinities.brand_release_key
            and certain.movie_id = affinities.movie_id
    left join persons
        on
            certain.brand_release_key = persons.brand_release_key
            and certain.movie_id = persons.movie_id
    group by certain.brand_name
),

evidence as (
    select
        possible.*,
        -- a re-release grossed anything
        case
            when not possible.is_rerelease then expected.expected_log_gross
        end as expected_log_gross,
        coalesce(eras.era_fit, {{ weights.usual_era_fit }}) as era_fit,
        coalesce(languages.language_fit, {{ weights.usual_language_fit }})
            as language_fit,
        coalesce(affinities.company_affinity, 0) as company_affinity,
        persons.person_affinity,
        -- companies or an author: one of them is enough
        greatest(
            coalesce(affinities.company_affinity, 0),
            coalesce(persons.person_affinity, 0)
        ) as brand_affinity,
        greatest(
            coalesce(usual_affinities.usual_affinity, 0)
            - greatest(
                coalesce(affinities.company_affinity, 0),
                coalesce(persons.person_affinity, 0)
            ),
            0
        ) as affinity_lack,
        -- nothing where the authors of the film, or of the brand, are unknown
        greatest(
            coalesce(
                usual_affinities.usual_person_affinity
                - persons.person_affinity,
                0
            ),
            0
        ) as person_lack,
        expected.is_open_below,
        case
            when not possible.is_rerelease
                then
                    ln(possible.estimated_gross_usd)
                    - expected.expected_log_gross
        end as gross_surplus
    from possible
    inner join expected
        on possible.brand_release_key = expected.brand_release_key
    left join affinities
        on
            possible.brand_release_key = affinities.brand_release_key
            and possible.movie_id = affinities.movie_id
    left join persons
        on
            possible.brand_release_key = persons.brand_release_key
            and possible.movie_id = persons.movie_id
    left join usual_affinities
        on possible.brand_name = usual_affinities.brand_name
    left join languages
        on
            possible.brand_release_key = languages.brand_release_key
            and possible.movie_id = languages.movie_id
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
        + {{ weights.company_affinity }} * brand_affinity
        + {{ weights.affinity_lack }} * affinity_lack
        + {{ weights.person_lack }} * person_lack
        + {{ weights.era_fit }} * era_fit
        + {{ weights.language_fit }} * language_fit
        + case
            when revenue_usd is null then {{ weights.revenue_unknown }} else 0
        end
        + {{ weights.title_cost }} * title_cost
        + {{ weights.rivals }} * ln(rival_count)
        + case
            when
                gross_surplus is null
                or (is_open_below and gross_surplus < 0)
                then {{ weights.surplus_unknown }}
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
        noted_year,
        movie_id,
        match_rule,
        title_kind,
        is_rerelease,
        title_cost,
        title,
        release_date,
        vote_count,
        estimated_gross_usd,
        rival_count,
        is_open_below,
        {{ rounded('exp(expected_log_gross)', 20, 2) }} as expected_gross_usd,
        cast(company_affinity as numeric(6, 4)) as company_affinity,
        cast(person_affinity as numeric(6, 4)) as person_affinity,
        cast(brand_affinity as numeric(6, 4)) as brand_affinity,
        cast(person_lack as numeric(6, 4)) as person_lack,
        cast(affinity_lack as numeric(6, 4)) as affinity_lack,
        cast(era_fit as numeric(6, 4)) as era_fit,
        cast(language_fit as numeric(6, 4)) as language_fit,
        cast(score as numeric(8, 4)) as score,
        revenue_usd is null as is_revenue_unknown
    from weighed
)

select * from final
