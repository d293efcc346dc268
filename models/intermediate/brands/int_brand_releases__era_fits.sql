{#- a brand's films come in waves -#}
{%- set near_years = 3 -%}

with candidates as (
    select * from {{ ref('int_brand_releases__candidates') }}
    where
        -- the year of a re-release says nothing of its film's
        not is_rerelease
        and release_date is not null
),

certain as (
    select * from {{ ref('int_brand_releases__certain') }}
    where release_date is not null
),

brand_movies as (
    select
        brand_name,
        movie_id,
        release_date
    from certain
    group by brand_name, movie_id, release_date
),

-- the brand's other certain films, and how many of them are of about that year
counted as (
    select
        candidates.brand_release_key,
        candidates.movie_id,
        count(*) as other_movie_count,
        count(
            case
                when
                    abs(
                        extract(year from candidates.release_date)
                        - extract(year from brand_movies.release_date)
                    ) <= {{ near_years }}
                    then 1
            end
        ) as near_movie_count
    from candidates
    inner join brand_movies
        on
            candidates.brand_name = brand_movies.brand_name
            and candidates.movie_id != brand_movies.movie_id
    group by candidates.brand_release_key, candidates.movie_id
),

-- smoothed as if two more films were known, a tenth of them near
final as (
    select
        brand_release_key,
        movie_id,
        ln((near_movie_count + 0.2) / (other_movie_count + 2)) as era_fit
    from counted
)

select * from final
