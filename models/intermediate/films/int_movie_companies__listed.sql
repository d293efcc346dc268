with movies as (
    select * from {{ ref('stg_tmdb__movies') }}
),

movie_companies as (
    select * from {{ ref('stg_tmdb__movie_companies') }}
),

-- one row per film and company, however often a film lists it
listed as (
    select
        movies.movie_id,
        movie_companies.company_id,
        min({{ sound_value('movie_companies.company_name', 'name') }})
            as company_name,
        min({{ sound_value('movie_companies.origin_country') }})
            as origin_country,
        min(movie_companies.list_position) as list_position
    from movie_companies
    inner join movies on movie_companies.movie_dlt_id = movies.dlt_id
    where movie_companies.company_id is not null
    group by movies.movie_id, movie_companies.company_id
)

select * from listed
