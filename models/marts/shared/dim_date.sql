-- Grain: one row per day of the years from calendar_first_year to
-- calendar_last_year (variables), and one for the unknown day. It does not
-- depend on what has arrived.
with numbers as (
    {{ dbt_utils.generate_series(
        (
            var('calendar_last_year') | int
            - var('calendar_first_year') | int + 1
        ) * 366
    ) }}
),

numbered as (
    select
        cast(
            {{ dbt.dateadd(
                'day',
                'generated_number - 1',
                "cast('" ~ calendar_first_day() ~ "' as date)"
            ) }} as date
        ) as date_day
    from numbers
),

days as (
    select date_day from numbered
    where date_day < cast('{{ calendar_end() }}' as date)
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
        {{ weekday_name('date_day') }} as weekday_name,
        cast({{ dbt.date_trunc('month', 'date_day') }} as date) as month_start,
        cast({{ dbt.date_trunc('week', 'date_day') }} as date) as week_start,
        coalesce({{ iso_day_of_week('date_day') }} in (6, 7), false)
            as is_weekend,
        date_day is null as is_unknown
    from unioned
)

select * from final
