{#-
    The readings of a release title, from the plain one to looser ones. Each
    rule takes the folded title and leaves out what one source prints and the
    other does not. Rules are tried in this order; a looser one counts only
    where the stricter ones find no film.
-#}
{%- set folded = strip_release_note(fold_text("release_title")) -%}
{%- set rules = [
    ("as_printed", folded),
    ("without_episode", regexp_remove(folded, "episode [ivx0-9]+ *[-:]")),
    ("without_number", regexp_remove(folded, " ([0-9]+|[ivx]+) *:")),
    ("without_possessive", regexp_remove(folded, "^[a-z0-9 .-]+(''s|s'') ")),
] -%}

with releases as (
    select * from {{ ref('int_brand_releases__unioned') }}
),

aliases as (
    select * from {{ ref('title_aliases') }}
),

readings as (
    {% for rule, expression in rules -%}
    select
        brand_release_key,
        '{{ rule }}' as match_rule,
        {{ loop.index * 10 }} as rule_rank,
        {{ title_key(expression) }} as title_key
    from releases
    union all
    {% endfor -%}
    select
        releases.brand_release_key,
        'alias' as match_rule,
        15 as rule_rank,
        {{ title_key(
            "replace(" ~ folded ~ ", aliases.phrase, aliases.replacement)"
        ) }} as title_key
    from releases
    inner join aliases
        on {{ folded }} like '%' || aliases.phrase || '%'
),

-- the strictest rule of each distinct reading
ranked as (
    select
        *,
        row_number() over (
            partition by brand_release_key, title_key
            order by rule_rank
        ) as strictness
    from readings
    where title_key is not null
),

final as (
    select
        brand_release_key,
        title_key,
        match_rule,
        rule_rank
    from ranked
    where strictness = 1
)

select * from final
