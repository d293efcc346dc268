{{ config(materialized='table') }}

with releases as (
    select * from {{ ref('int_brand_releases__unioned') }}
),

candidates as (
    select * from {{ ref('int_brand_releases__candidates') }}
),

scored as (
    select * from {{ ref('int_brand_releases__scored') }}
),

originals as (
    select * from {{ ref('int_brand_releases__originals') }}
),

rereleases as (
    select * from {{ ref('int_brand_releases__rereleases') }}
),

corrections as (
    select * from {{ ref('brand_match_corrections') }}
),

movies as (
    select * from {{ ref('int_movies__checked') }}
),

candidate_counts as (
    select
        brand_release_key,
        count(*) as candidate_count
    from candidates
    group by brand_release_key
),

-- the best of all, for those releases that go without
likeliest as (
    select
        *,
        row_number() over (
            partition by brand_release_key
            order by score desc, movie_id asc
        ) as likeliness
    from scored
),

-- a release with a note is a re-release unless it is titled so
best as (
    select
        *,
        row_number() over (
            partition by brand_release_key
            order by
                case when is_found then 0 else 1 end asc,
                case when is_rerelease then 1 else 0 end asc
        ) as choice
    from (
        select
            *,
            false as is_rerelease
        from originals

        union all

        select
            *,
            true as is_rerelease
        from rereleases
    ) as both_kinds
),

decided as (
    select
        releases.brand_release_key,
        releases.brand_name,
        releases.list_position,
        releases.release_title,
        releases.release_source,
        releases.is_top_release,
        releases.gross_usd,
        best.match_rule,
        best.score,
        best.score_lead,
        likeliest.movie_id as likeliest_movie_id,
        likeliest.score as likeliest_score,
        -- a film set by hand counts once it is in the catalogue
        case
            when corrections.brand_name is not null then movies.movie_id
            else best.movie_id
        end as best_movie_id,
        coalesce(candidate_counts.candidate_count, 0) as candidate_count,
        case
            when corrections.brand_name is not null
                then
                    case
                        when movies.movie_id is null then 'no_film_by_hand'
                        else 'set_by_hand'
                    end
            when best.movie_id is not null then best.match_reason
            when candidate_counts.candidate_count is null
                then 'no_film_of_this_title'
            when likeliest.movie_id is null then 'no_possible_film'
            else 'taken_by_another_release'
        end as match_reason
    from releases
    left join candidate_counts
        on releases.brand_release_key = candidate_counts.brand_release_key
    left join likeliest
        on
            releases.brand_release_key = likeliest.brand_release_key
            and likeliest.likeliness = 1
    left join best
        on
            releases.brand_release_key = best.brand_release_key
            and best.choice = 1
    left join corrections
        on
            releases.brand_name = corrections.brand_name
            and releases.list_position = corrections.list_position
            and releases.release_title = corrections.release_title
    left join movies on corrections.movie_id = movies.movie_id
),

statuses as (
    select
        *,
        case
            when
                match_reason in (
                    'only_candidate',
                    'best_score',
                    'order_of_the_list',
                    'film_of_its_original',
                    'set_by_hand'
                )
                then 'matched'
            when match_reason = 'rivals_too_close' then 'ambiguous'
            else 'unmatched'
        end as match_status
    from decided
),

final as (
    select
        brand_release_key,
        brand_name,
        list_position,
        release_title,
        release_source,
        is_top_release,
        gross_usd,
        match_status,
        match_reason,
        match_rule,
        score,
        score_lead,
        candidate_count,
        case when match_status = 'matched' then best_movie_id end as movie_id,
        case
            when match_status != 'matched' then likeliest_movie_id
        end as nearest_movie_id,
        case
            when match_status != 'matched' then likeliest_score
        end as nearest_score,
        match_status = 'matched' as is_matched
    from statuses
)

select * from final
