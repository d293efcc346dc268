with movies as (
    select * from {{ ref('int_movies__checked') }}
),

title_kinds as (
    select
        'title' as title_kind,
        0 as kind_rank
    union all
    select
        'loose_title' as title_kind,
        1 as kind_rank
    union all
    select
        'original_title' as title_kind,
        2 as kind_rank
    union all
    select
        'loose_original_title' as title_kind,
        3 as kind_rank
),

-- a join and not a union, so that each film is read once and by all workers
titles as (
    select
        movies.movie_id,
        title_kinds.title_kind,
        title_kinds.kind_rank,
        case
            when title_kinds.kind_rank < 2 then movies.title
            else movies.original_title
        end as title
    from movies
    cross join title_kinds
    where
        title_kinds.kind_rank < 2
        or movies.title is null
        or movies.original_title != movies.title
),

{{ loose_title_ctes('titles') }},

final as (
    select
        movie_id,
        case
            when kind_rank in (0, 2) then {{ normalize_title('title') }}
            else loose_title_key
        end as title_key,
        title_kind,
        kind_rank
    from titles_keyed
)

select * from final
