-- Every day between the first and the last one has a row.
with dates as (
    select
        date_day,
        lead(date_day) over (order by date_day) as next_date_day
    from {{ ref('dim_date') }}
    where not is_unknown
)

select * from dates
where next_date_day != {{ dbt.dateadd('day', 1, 'date_day') }}
