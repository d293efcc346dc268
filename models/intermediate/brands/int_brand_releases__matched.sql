with releases as (
    select * from {{ ref('int_brand_releases__unioned') }}
),

candidates as (
    select * from {{ ref('int_brand_releases__candidates') }}
),

-- among films of one title the one that earned most, then the best known
ranked as (
    select
        *,
        row_number() over (
            partition by brand_release_key
            order by
                is_gross_contradicted asc,
                rule_rank asc,
                revenue_usd desc nulls last,
                vote_count desc nulls last,
                movie_id asc
        ) as preference,
        count(*) over (partition by brand_release_key) as candidate_count
    from candidates
),

final as (
    select
        releases.brand_release_key,
        releases.brand_name,
        releases.list_position,
        releases.release_title,
        releases.release_source,
        releases.is_top_release,
        releases.gross_usd,
        ranked.movie_id,
        ranked.match_rule,
        ranked.movie_id is not null as is_matched,
        coalesce(ranked.candidate_count, 0) as candidate_count
    from releases
    left join ranked
        on
            releases.brand_release_key = ranked.brand_release_key
            and ranked.preference = 1
)

select * from final
