{#
    What a film may have grossed in the US and Canada, in US dollars: a share
    of its worldwide revenue, which was larger when cinemas abroad counted less;
    where the revenue is unknown, what films with as many votes took.

    Measured on the brand index and TMDB: mean share
    0.85 before 1990, 0.5 from 2000 to 2009, 0.4 to 0.5 since; median revenue
    0.1, 0.8, 3.6, 51 and 580 million dollars at 1, 10, 100, 1,000, 10,000
    votes.
#}
{% macro domestic_gross_estimate(revenue, vote_count, release_date) -%}
    coalesce(
        cast({{ revenue }} as {{ type_double() }}),
        80000 * power(greatest({{ vote_count }}, 1), 0.95)
    ) * greatest(0.42, least(
        0.85,
        0.85 - 0.0165 * (coalesce(extract(year from {{ release_date }}), 2010) - 1985)
    ))
{%- endmacro %}
