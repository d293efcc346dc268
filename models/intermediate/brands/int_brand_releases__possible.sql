with candidates as (
    select * from {{ ref('int_brand_releases__candidates') }}
),

certain as (
    select * from {{ ref('int_brand_releases__certain') }}
),

-- a list cannot name a film that came out after it was written, which was soon
-- after the newest of its certain films; one in a hundred may be mistaken
certain_by_age as (
    select
        release_date,
        row_number() over (order by release_date desc) as newness,
        count(*) over () as certain_count
    from certain
    where
        release_source = 'release_list'
        and release_date is not null
),

list_ends as (
    select {{ dbt.dateadd('month', 6, 'max(release_date)') }} as list_ended_at
    from certain_by_age
    where newness > 0.01 * certain_count
),

-- what is certain to be one release of a brand is none of its others
certain_movies as (
    select
        brand_name,
        release_source,
        movie_id,
        min(brand_release_key) as first_release_key,
        max(brand_release_key) as last_release_key
    from certain
    group by brand_name, release_source, movie_id
),

possible as (
    select candidates.*
    from candidates
    cross join list_ends
    left join certain_movies
        on
            candidates.brand_name = certain_movies.brand_name
            and candidates.release_source = certain_movies.release_source
            and candidates.movie_id = certain_movies.movie_id
    where
        (
            candidates.is_rerelease
            or certain_movies.movie_id is null
            or candidates.brand_release_key in (
                certain_movies.first_release_key,
                certain_movies.last_release_key
            )
        )
        -- a film cannot come back before it came
        and (
            candidates.noted_year is null
            or candidates.release_date is null
            or extract(year from candidates.release_date)
            <= candidates.noted_year
            + case when candidates.is_rerelease then 0 else 1 end
        )
        and (
            -- what the index names is as new as the index
            candidates.gross_usd is not null
            or candidates.release_source != 'release_list'
            or candidates.release_date is null
            or list_ends.list_ended_at is null
            or candidates.release_date <= list_ends.list_ended_at
        )
),

final as (
    select
        brand_release_key,
        brand_name,
        list_position,
        release_title,
        release_source,
        noted_year,
        gross_usd,
        movie_id,
        match_rule,
        title_kind,
        is_rerelease,
        title_cost,
        title,
        release_date,
        runtime_minutes,
        revenue_usd,
        vote_count,
        estimated_gross_usd,
        -- films that a reading about as strict leads to as well
        count(*) over (
            partition by brand_release_key
            order by title_cost
            range between unbounded preceding and 0.3 following
        ) as rival_count
    from possible
)

select * from final
