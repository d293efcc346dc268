with candidates as (
    select * from {{ ref('int_brand_releases__candidates') }}
),

credits as (
    select * from {{ ref('stg_tmdb__movie_authors') }}
),

candidate_movies as (
    select
        brand_name,
        movie_id
    from candidates
    group by brand_name, movie_id
),

-- a name is in the brand's where it is a run of whole words of it
movie_affinities as (
    select
        candidate_movies.brand_name,
        candidate_movies.movie_id,
        max(
            case
                when
                    {{ spaced_words('candidate_movies.brand_name') }}
                    like '%' || {{ spaced_words('credits.person_name') }} || '%'
                    and trim(credits.person_name) like '% %'
                    then 1
                else 0
            end
        ) as person_affinity
    from candidate_movies
    inner join credits on candidate_movies.movie_id = credits.movie_id
    group by candidate_movies.brand_name, candidate_movies.movie_id
),

-- brands that are named for an author of one of these films
named_brands as (
    select brand_name
    from movie_affinities
    where person_affinity = 1
    group by brand_name
),

final as (
    select
        candidates.brand_release_key,
        candidates.movie_id,
        movie_affinities.person_affinity
    from candidates
    inner join named_brands
        on candidates.brand_name = named_brands.brand_name
    inner join movie_affinities
        on
            candidates.brand_name = movie_affinities.brand_name
            and candidates.movie_id = movie_affinities.movie_id
)

select * from final
