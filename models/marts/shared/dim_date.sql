-- Grain: one row per day, from the first to the last year in which anything
-- happened, and one for the unknown day. It grows with the data.
with movies as (
    select * from {{ ref('dim_movie') }}
),

metrics as (
    select * from {{ ref('fct_movie_metrics') }}
),

transactions as (
    select * from {{ ref('fct_transactions') }}
),

status_changes as (
    select * from {{ ref('fct_transaction_status_changes') }}
),

happened as (
    select
        min(release_date) as first_date,
        max(release_date) as last_date
    from movies

    union all

    select
        min(pulled_date) as first_date,
        max(pulled_date) as last_date
    from metrics

    union all

    select
        min(event_date) as first_date,
        max(event_date) as last_date
    from transactions

    union all

    -- an earlier version may be of an earlier year
    select
        min(changed_date) as first_date,
        max(changed_date) as last_date
    from status_changes
),

bounds as (
    select
        {{ dbt.date_trunc('year', 'min(first_date)') }} as first_day,
        {{ dbt.dateadd(
            'year', 1, dbt.date_trunc('year', 'max(last_date)')
        ) }} as end_day
    from happened
),

-- 200 years are enough for cinema
numbers as (
    {{ dbt_utils.generate_series(73050) }}
),

days as (
    select
        cast(
            {{ dbt.dateadd(
                'day', 'numbers.generated_number - 1', 'bounds.first_day'
            ) }} as date
        ) as date_day
    from numbers
    cross join bounds
    where
        {{ dbt.dateadd(
            'day', 'numbers.generated_number - 1', 'bounds.first_day'
        ) }} < bounds.end_day
),

unioned as (
    select date_day from days
    union all
    select cast(null as date) as date_day
),

final as (
    select
        {{ date_key('date_day') }} as date_key,
        date_day,
        cast(extract(year from date_day) as integer) as year_number,
        cast(extract(quarter from date_day) as integer) as quarter_number,
        cast(extract(month from date_day) as integer) as month_number,
        cast(extract(week from date_day) as integer) as iso_week_number,
        cast(extract(day from date_day) as integer) as day_of_month,
        cast({{ iso_day_of_week('date_day') }} as integer) as iso_day_of_week,
        cast({{ dbt.date_trunc('month', 'date_day') }} as date) as month_start,
        cast({{ dbt.date_trunc('week', 'date_day') }} as date) as week_start,
        coalesce({{ iso_day_of_week('date_day') }} in (6, 7), false)
            as is_weekend,
        date_day is null as is_unknown
    from unioned
)

select * from final
