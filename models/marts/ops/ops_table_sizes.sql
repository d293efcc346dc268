-- Grain: one row per build and table. size_bytes adds up over the tables of one
-- build, never over builds.
{{ config(materialized='view') }}

with table_sizes as (
    select * from {{ ref('stg_ops__table_sizes') }}
),

invocations as (
    select * from {{ ref('stg_ops__invocations') }}
),

measured as (
    select
        table_sizes.*,
        invocations.run_id,
        invocations.ended_at as measured_at,
        dense_rank() over (
            order by
                invocations.started_at desc, invocations.invocation_id asc
        ) as place
    from table_sizes
    inner join invocations
        on table_sizes.invocation_id = invocations.invocation_id
),

final as (
    select
        invocation_id,
        schema_name,
        table_name,
        run_id,
        size_bytes,
        estimated_rows,
        measured_at,
        place = 1 as is_latest
    from measured
)

select * from final
