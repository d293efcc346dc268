{#-
    The readings of a release title, from the plain one to looser ones. Each
    rule leaves out what one source prints and the other does not, and costs
    as much as a film so found is less likely to be the right one.
-#}
{%- set folded = strip_release_note(fold_text("release_title")) -%}
{%- set rules = [
    ("as_printed", folded, 0),
    ("without_episode", regexp_remove(folded, "episode [ivx0-9]+ *[-:]"), 0.3),
    ("without_number", regexp_remove(folded, " ([0-9]+|[ivx]+) *:"), 0.5),
    (
        "without_possessive",
        regexp_remove(folded, "^[a-z0-9 .-]+(''s|s'') "),
        0.7
    ),
    ("after_colon", regexp_remove(folded, "^[^:]*:"), 1.5),
    ("before_colon", regexp_remove(folded, ":.*$"), 1.5),
] -%}

with releases as (
    select * from {{ ref('int_brand_releases__unioned') }}
),

aliases as (
    select * from {{ ref('title_aliases') }}
),

readings as (
    {% for rule, expression, cost in rules -%}
    select
        brand_release_key,
        '{{ rule }}' as match_rule,
        {{ cost }} as rule_cost,
        {{ expression }} as title
    from releases

    union all

    {% endfor -%}
    select
        releases.brand_release_key,
        'alias' as match_rule,
        0.3 as rule_cost,
        replace(
            {{ folded }}, aliases.phrase, aliases.replacement
        ) as title
    from releases
    inner join aliases
        on {{ folded }} like '%' || aliases.phrase || '%'
),

{{ loose_title_ctes('readings') }},

keyed as (
    select
        brand_release_key,
        match_rule,
        rule_cost,
        {{ title_key('title') }} as title_key
    from readings_keyed

    union all

    select
        brand_release_key,
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
        match_rule,
        rule_cost
    from ranked
    where cheapness = 1
)

select * from final
