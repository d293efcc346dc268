-- Grain: one row per film and company; a film without any has one row, with the
-- unknown company. Weights of a film sum to 1: measure * weight adds up.
with movies as (
    select * from {{ ref('int_movies__checked') }}
),

movie_companies as (
    select * from {{ ref('int_movie_companies__listed') }}
),

joined as (
    select
        movies.movie_id,
        movie_companies.company_id,
        movie_companies.list_position,
        count(*) over (partition by movies.movie_id) as company_count
    from movies
    left join movie_companies on movies.movie_id = movie_companies.movie_id
),

final as (
    select
        {{ dbt_utils.generate_surrogate_key(['movie_id']) }} as movie_key,
        {{ dbt_utils.generate_surrogate_key(['company_id']) }} as company_key,
        list_position,
        cast(
            cast(1 as numeric(18, 12)) / company_count as numeric(18, 12)
        ) as weight
    from joined
)

select * from final
