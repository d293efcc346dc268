-- Grain: one row per command of dbt and node: a model, seed, snapshot or test.
-- duration_seconds adds up to processing time, for several nodes run at once.
{{ config(materialized='view') }}

with node_results as (
    select * from {{ ref('stg_ops__node_results') }}
),

invocations as (
    select * from {{ ref('stg_ops__invocations') }}
),

latest as (
    select
        invocation_id,
        row_number() over (order by started_at desc, invocation_id asc) as place
    from invocations
    where
        program_name = 'dbt' and command_name = 'build' and not is_partial
        and run_status in ('succeeded', 'failed')
),

final as (
    select
        node_results.invocation_id,
        node_results.node_id,
        invocations.run_id,
        invocations.command_name,
        node_results.resource_type,
        node_results.node_name,
        node_results.schema_name,
        node_results.owner_name,
        node_results.node_status,
        node_results.node_message,
        node_results.rows_affected,
        node_results.failure_count,
        invocations.started_at,
        cast(node_results.duration_seconds as numeric(18, 3))
            as duration_seconds,
        node_results.resource_type in ('test', 'unit_test') as is_test,
        node_results.node_status in ('fail', 'error', 'runtime error')
            as is_failure,
        coalesce(latest.place = 1, false) as is_latest_build
    from node_results
    inner join invocations
        on node_results.invocation_id = invocations.invocation_id
    left join latest
        on node_results.invocation_id = latest.invocation_id
)

select * from final
