with movies as (
    select * from {{ ref('stg_tmdb__movies') }}
),

titles as (
    select
        movie_id,
        title_key,
        'title' as title_kind,
        0 as kind_rank,
        {{ fold_text('title') }} as folded_title
    from movies

    union all

    select
        movie_id,
        original_title_key as title_key,
        'original_title' as title_kind,
        2 as kind_rank,
        {{ fold_text('original_title') }} as folded_title
    from movies
    where original_title_key != title_key or title_key is null
),

{{ loose_title_ctes('titles') }},

keyed as (
    select
        movie_id,
        title_key,
        title_kind,
        kind_rank
    from titles_keyed

    union all

    select
        movie_id,
        loose_title_key as title_key,
        'loose_' || title_kind as title_kind,
        kind_rank + 1 as kind_rank
    from titles_keyed
),

-- a key that several titles of a film give counts as the plainest of them
ranked as (
    select
        *,
        row_number() over (
            partition by movie_id, title_key
            order by kind_rank
        ) as plainness
    from keyed
    where title_key is not null
),

final as (
    select
        movie_id,
        title_key,
        title_kind,
        kind_rank
    from ranked
    where plainness = 1
)

select * from final
