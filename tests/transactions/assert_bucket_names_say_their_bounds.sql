-- A bucket is called by its bounds, "100-250", so that a chart's label and what
-- it counts cannot drift apart.
with bounds as (
    select
        amount_bucket,
        cast(lower_bound as integer) as lower_bound
    from {{ ref('amount_buckets') }}
),

buckets as (
    select
        amount_bucket,
        lower_bound,
        lead(lower_bound) over (order by lower_bound) as upper_bound
    from bounds
),

named as (
    select
        *,
        case
            when lower_bound = 0
                then {{ dbt.concat(["'<'", "upper_bound"]) }}
            when upper_bound is null
                then {{ dbt.concat(["'>='", "lower_bound"]) }}
            else {{ dbt.concat(["lower_bound", "'-'", "upper_bound"]) }}
        end as name_by_bounds
    from buckets
)

select * from named
where amount_bucket != name_by_bounds
