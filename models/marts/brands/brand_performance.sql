-- Grain: one row per brand. Film figures are worldwide and of matched films,
-- index figures domestic and of all releases: side by side, never subtracted.
-- A film in several brands counts in each: sums over brands need the weighted
-- column. A brand without a release list has figures of its top release only:
-- release_coverage_note says so. Card columns are of transactions in the
-- reporting currency.
with brands as (
    select * from {{ ref('dim_brand') }}
    where not is_unknown
),

brand_movies as (
    select * from {{ ref('bridge_brand_movie') }}
),

movies as (
    select * from {{ ref('dim_movie') }}
),

merchants as (
    select * from {{ ref('dim_merchant') }}
    where is_brand_affiliated
),

daily_spend as (
    select * from {{ ref('daily_merchants') }}
),

film_figures as (
    select
        brand_movies.brand_key,
        count(*) as movie_count,
        avg(movies.popularity) as mean_popularity,
        avg(movies.vote_average) as mean_vote_average,
        sum(movies.vote_count) as vote_count,
        sum(movies.revenue_usd) as revenue_usd,
        sum(movies.revenue_usd * brand_movies.weight) as weighted_revenue_usd
    from brand_movies
    inner join movies on brand_movies.movie_key = movies.movie_key
    group by brand_movies.brand_key
),

spend as (
    select
        merchant_key,
        sum(transaction_count) as transaction_count,
        sum(approved_amount) as approved_amount
    from daily_spend
    where currency_code = '{{ var("reporting_currency") }}'
    group by merchant_key
),

-- where the index does not know the brand, its list has to do; a release that
-- is found and in neither does not make more than all
counted as (
    select
        brand_key,
        has_release_list,
        coalesce(index_release_count, listed_release_count) as release_count,
        case
            when
                matched_release_count
                > coalesce(index_release_count, listed_release_count)
                then coalesce(index_release_count, listed_release_count)
            else matched_release_count
        end as found_count
    from brands
),

coverage as (
    select
        brand_key,
        cast(
            {{ dbt_utils.safe_divide(
                'cast(found_count as numeric(18, 6))', 'release_count'
            ) }} as numeric(7, 6)
        ) as release_coverage,
        {{ dbt.concat([
            'cast(found_count as ' ~ dbt.type_string() ~ ')',
            "' of '",
            'cast(release_count as ' ~ dbt.type_string() ~ ')',
            "case when has_release_list then '' else ', no release list' end",
        ]) }} as release_coverage_note
    from counted
),

card_spend as (
    select
        merchants.brand_key,
        sum(spend.transaction_count) as transaction_count,
        sum(spend.approved_amount) as approved_amount
    from merchants
    inner join spend on merchants.merchant_key = spend.merchant_key
    group by merchants.brand_key
),

final as (
    select
        brands.brand_key,
        brands.brand_name,
        brands.index_rank,
        brands.index_total_gross_usd,
        brands.index_release_count,
        brands.listed_release_count,
        brands.matched_release_count,
        brands.has_release_list,
        coverage.release_coverage,
        coverage.release_coverage_note,
        cast(coalesce(film_figures.movie_count, 0) as bigint) as movie_count,
        {{ rounded('film_figures.mean_popularity', 18, 6) }} as mean_popularity,
        {{ rounded('film_figures.mean_vote_average', 6, 3) }}
            as mean_vote_average,
        cast(coalesce(film_figures.vote_count, 0) as bigint) as vote_count,
        cast(film_figures.revenue_usd as numeric(20, 2)) as revenue_usd,
        cast(film_figures.weighted_revenue_usd as numeric(20, 2))
            as weighted_revenue_usd,
        cast(coalesce(card_spend.transaction_count, 0) as bigint)
            as card_transaction_count,
        cast(coalesce(card_spend.approved_amount, 0) as numeric(20, 4))
            as card_approved_amount,
        '{{ var("reporting_currency") }}' as card_currency_code
    from brands
    inner join coverage on brands.brand_key = coverage.brand_key
    left join film_figures on brands.brand_key = film_figures.brand_key
    left join card_spend on brands.brand_key = card_spend.brand_key
)

select * from final
