{#-
    Looser readings of a title: which titles have one, what it is, and what a
    film so found costs. Those of titles that leave nothing out are not made.
    Kinds have numbers, as the database compares them many million times.
-#}
{%- set folded = fold_text("title") -%}
{%- set readings = [
    ("without_movie", "movies.title like '%ovie'", without_movie(folded), 0.4),
    (
        "without_possessive",
        "movies.title like '%''%' or movies.title like '%’%'",
        without_possessive(folded),
        0.7
    ),
    (
        "after_dash",
        "movies.title like '% - %' or movies.title like '% – %'",
        after_last_dash("replace(" ~ folded ~ ", '–', '-')"),
        1.0
    ),
    ("after_colon", "movies.title like '%:%'", after_colon(folded), 1.2),
    ("before_colon", "movies.title like '%:%'", before_colon(folded), 1.2),
] -%}

with movies as (
    select * from {{ ref('int_movies__checked') }}
),

alternative_titles as (
    select * from {{ ref('stg_tmdb__movie_alternative_titles') }}
),

title_kinds as (
    select
        0 as kind_number,
        'title' as title_kind,
        0 as kind_cost
    union all
    select
        1 as kind_number,
        'loose_title' as title_kind,
        0.1 as kind_cost
    union all
    select
        2 as kind_number,
        'original_title' as title_kind,
        0.2 as kind_cost
    union all
    select
        3 as kind_number,
        'loose_original_title' as title_kind,
        0.3 as kind_cost
    {% for reading, _, _, cost in readings -%}
    union all
    select
        {{ 3 + loop.index }} as kind_number,
        'title_{{ reading }}' as title_kind,
        {{ cost }} as kind_cost
    {% endfor %}
),

-- a join and not a union, so that each film is read once and by all workers
own_titles as (
    select
        movies.movie_id,
        title_kinds.kind_number,
        title_kinds.title_kind,
        title_kinds.kind_cost,
        case
            when title_kinds.kind_number in (2, 3) then movies.original_title
            else movies.title
        end as title
    from movies
    cross join title_kinds
    where
        case title_kinds.kind_number
            when 0 then true
            when 1 then true
            {% for reading, condition, _, _ in readings -%}
            when {{ 3 + loop.index }} then {{ condition }}
            {% endfor -%}
            else
                movies.title is null
                or movies.original_title != movies.title
        end
),

-- one that the United States know is as good as an original one
titles as (
    select
        movie_id,
        kind_number,
        title_kind,
        kind_cost,
        title
    from own_titles

    union all

    select
        movie_id,
        0 as kind_number,
        'alternative_title' as title_kind,
        min(case when country_code = 'US' then 0.2 else 0.4 end) as kind_cost,
        title
    from alternative_titles
    where title is not null
    group by movie_id, title
),

{{ loose_title_ctes('titles') }},

final as (
    select
        movie_id,
        title_kind,
        kind_cost,
        case kind_number
            when 1 then loose_title_key
            when 3 then loose_title_key
            {% for reading, _, expression, _ in readings -%}
            when {{ 3 + loop.index }}
                then {{ title_key(expression) }}
            {% endfor -%}
            else {{ normalize_title('title') }}
        end as title_key
    from titles_keyed
)

select * from final
