with candidates as (
    select * from {{ ref('int_brand_releases__candidates') }}
),

certain as (
    select * from {{ ref('int_brand_releases__certain') }}
),

movies as (
    select * from {{ ref('int_movies__checked') }}
),

-- how many of a brand's certain films are in which language
brand_movies as (
    select
        certain.brand_name,
        certain.movie_id,
        movies.original_language
    from certain
    inner join movies on certain.movie_id = movies.movie_id
    group by
        certain.brand_name,
        certain.movie_id,
        movies.original_language
),

brand_counts as (
    select
        brand_name,
        count(*) as movie_count
    from brand_movies
    group by brand_name
),

brand_languages as (
    select
        brand_name,
        original_language,
        count(*) as movie_count
    from brand_movies
    group by brand_name, original_language
),

-- a film does not speak for itself
counted as (
    select
        candidates.brand_release_key,
        candidates.movie_id,
        brand_counts.movie_count
        - case when brand_movies.movie_id is null then 0 else 1 end
            as other_movie_count,
        coalesce(brand_languages.movie_count, 0)
        - case when brand_movies.movie_id is null then 0 else 1 end
            as same_language_count
    from candidates
    inner join movies on candidates.movie_id = movies.movie_id
    inner join brand_counts
        on candidates.brand_name = brand_counts.brand_name
    left join brand_movies
        on
            candidates.brand_name = brand_movies.brand_name
            and candidates.movie_id = brand_movies.movie_id
    left join brand_languages
        on
            candidates.brand_name = brand_languages.brand_name
            and movies.original_language = brand_languages.original_language
),

-- smoothed as if one more film were known, half of it in the language
final as (
    select
        brand_release_key,
        movie_id,
        ln(
            (greatest(same_language_count, 0) + 0.5)
            / (other_movie_count + 1)
        ) as language_fit
    from counted
)

select * from final
