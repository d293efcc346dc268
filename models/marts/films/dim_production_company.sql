with movie_companies as (
    select * from {{ ref('int_movie_companies__listed') }}
),

-- TMDB can name a company and its country in one film and not in another
companies as (
    select
        company_id,
        max(company_name) as company_name,
        max(origin_country) as origin_country
    from movie_companies
    group by company_id
),

unioned as (
    select
        company_id,
        {{ name_or_number('company_name', 'Unnamed company', 'company_id') }}
            as company_name,
        origin_country
    from companies

    union all

    select
        cast(null as bigint) as company_id,
        '{{ unknown_name() }}' as company_name,
        cast(null as {{ dbt.type_string() }}) as origin_country
),

final as (
    select
        {{ dbt_utils.generate_surrogate_key(['company_id']) }} as company_key,
        company_id,
        company_name,
        origin_country,
        company_id is null as is_unknown
    from unioned
)

select * from final
