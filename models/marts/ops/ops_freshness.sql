-- Grain: one row per source table, as dbt source freshness found it last.
{{ config(materialized='view') }}

with freshness as (
    select * from {{ ref('stg_ops__freshness') }}
),

invocations as (
    select * from {{ ref('stg_ops__invocations') }}
),

ranked as (
    select
        freshness.*,
        row_number() over (
            partition by freshness.source_name, freshness.table_name
            order by
                invocations.started_at desc, freshness.invocation_id asc
        ) as place
    from freshness
    inner join invocations
        on freshness.invocation_id = invocations.invocation_id
),

final as (
    select
        source_name,
        table_name,
        freshness_status,
        max_loaded_at,
        checked_at,
        cast(
            {{ seconds_between('max_loaded_at', 'checked_at') }} / 86400
            as numeric(18, 3)
        ) as age_days
    from ranked
    where place = 1
)

select * from final
