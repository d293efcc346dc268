{#-
    The readings of a release title, from the plain one to looser ones. Each
    rule leaves out what one source prints and the other does not, and costs
    as much as a film so found is less likely to be the right one.
-#}
{%- set rules = [
    ("as_printed", "title", 0),
    ("without_episode", regexp_remove("title", "episode [ivx0-9]+ *[-:]"), 0.3),
    ("without_number", regexp_remove("title", " ([0-9]+|[ivx]+) *:"), 0.5),
    ("without_movie", without_movie("title"), 0.5),
    ("without_possessive", without_possessive("title"), 0.7),
    ("without_brackets", regexp_remove("title", "[([][^()]*[])]"), 0.7),
    ("after_dash", after_last_dash("title"), 1.0),
    ("after_colon", after_colon("title"), 1.2),
    ("before_colon", before_colon("title"), 1.2),
] -%}

with noted as (
    select * from {{ ref('int_brand_releases__unioned') }}
),

aliases as (
    select * from {{ ref('title_aliases') }}
),

-- what a title without its note leads to is a re-release; a note without a
-- year may be a part of the title after all
releases as (
    select
        brand_release_key,
        bare_title as title,
        is_noted as is_rerelease,
        0 as note_cost
    from noted

    union all

    select
        brand_release_key,
        printed_title as title,
        false as is_rerelease,
        0 as note_cost
    from noted
    where
        is_noted
        and noted_year is null

    union all

    select
        brand_release_key,
        {{ regexp_remove("bare_title", " *" ~ a_year() ~ "$") }} as title,
        true as is_rerelease,
        0.3 as note_cost
    from noted
    where
        is_noted
        and noted_year is null
),

readings as (
    {% for rule, expression, cost in rules -%}
    select
        brand_release_key,
        is_rerelease,
        '{{ rule }}' as match_rule,
        note_cost + {{ cost }} as rule_cost,
        {{ expression }} as title
    from releases

    union all

    {% endfor -%}
    select
        releases.brand_release_key,
        releases.is_rerelease,
        'alias' as match_rule,
        releases.note_cost + 0.3 as rule_cost,
        replace(
            releases.title, aliases.phrase, aliases.replacement
        ) as title
    from releases
    inner join aliases
        on releases.title like '%' || aliases.phrase || '%'
),

{{ loose_title_ctes('readings') }},

keyed as (
    select
        brand_release_key,
        is_rerelease,
        match_rule,
        rule_cost,
        {{ title_key('title') }} as title_key
    from readings_keyed

    union all

    select
        brand_release_key,
        is_rerelease,
        match_rule || '_loosely' as match_rule,
        rule_cost + 0.2 as rule_cost,
        loose_title_key as title_key
    from readings_keyed
),

-- the cheapest rule of each distinct reading
ranked as (
    select
        *,
        row_number() over (
            partition by brand_release_key, title_key
            order by rule_cost, match_rule
        ) as cheapness
    from keyed
    where title_key is not null
),

final as (
    select
        brand_release_key,
        title_key,
        is_rerelease,
        match_rule,
        rule_cost
    from ranked
    where cheapness = 1
)

select * from final
