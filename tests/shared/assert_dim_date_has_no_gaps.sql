-- Every day from the calendar's first to its last one has a row.
with dates as (
    select
        date_day,
        coalesce(
            lead(date_day) over (order by date_day),
            cast('{{ calendar_end() }}' as date)
        ) as next_date_day,
        lag(date_day) over (order by date_day) as previous_date_day
    from {{ ref('dim_date') }}
    where not is_unknown
)

select * from dates
where
    next_date_day != {{ dbt.dateadd('day', 1, 'date_day') }}
    or (
        previous_date_day is null
        and date_day != cast('{{ calendar_first_day() }}' as date)
    )
