{{ config(materialized='table') }}

with movie_companies as (
    select * from {{ ref('stg_tmdb__movie_companies') }}
),

-- one row per film and company, however often a film lists it
listed as (
    select
        movie_id,
        company_id,
        min({{ sound_value('company_name', 'name') }}) as company_name,
        min({{ sound_value('origin_country') }}) as origin_country,
        min(list_position) as list_position
    from movie_companies
    where company_id is not null
    group by movie_id, company_id
)

select * from listed
