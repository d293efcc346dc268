{#-
    Looser readings of a title: which titles have one, what it is, and what a
    film so found costs. Those of titles that leave nothing out are not made.
-#}
{%- set folded = fold_text("title") -%}
{%- set readings = [
    (
        "without_movie",
        "lower(movies.title) like '%movie'",
        without_movie(folded),
        0.4
    ),
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

title_kinds as (
    select
        'title' as title_kind,
        0.0 as kind_cost
    union all
    select
        'loose_title' as title_kind,
        0.1 as kind_cost
    union all
    select
        'original_title' as title_kind,
        0.2 as kind_cost
    union all
    select
        'loose_original_title' as title_kind,
        0.3 as kind_cost
    {% for reading, _, _, cost in readings -%}
    union all
    select
        'title_{{ reading }}' as title_kind,
        {{ cost }} as kind_cost
    {% endfor %}
),

-- a join and not a union, so that each film is read once and by all workers
titles as (
    select
        movies.movie_id,
        title_kinds.title_kind,
        title_kinds.kind_cost,
        case
            when
                title_kinds.title_kind in (
                    'original_title', 'loose_original_title'
                )
                then movies.original_title
            else movies.title
        end as title
    from movies
    cross join title_kinds
    where
        case title_kinds.title_kind
            when 'title' then true
            when 'loose_title' then true
            {% for reading, condition, _, _ in readings -%}
            when 'title_{{ reading }}' then {{ condition }}
            {% endfor -%}
            else
                movies.title is null
                or movies.original_title != movies.title
        end
),

{{ loose_title_ctes('titles') }},

final as (
    select
        movie_id,
        case title_kind
            when 'title' then {{ normalize_title('title') }}
            when 'original_title' then {{ normalize_title('title') }}
            {% for reading, _, expression, _ in readings -%}
            when 'title_{{ reading }}'
                then {{ title_key(expression) }}
            {% endfor -%}
            else loose_title_key
        end as title_key,
        title_kind,
        kind_cost
    from titles_keyed
)

select * from final
