-- Grain: one row per run_id: a command and all that it started, or all commands
-- that a scheduler ran under one id. Rows add up over runs.
-- A run fails with the latest attempt of any of its commands: one that failed
-- and succeeded when it was tried again is no failure.
{{ config(materialized='view') }}

with invocations as (
    select * from {{ ref('stg_ops__invocations') }}
),

landings as (
    select * from {{ ref('stg_ops__landings') }}
),

node_results as (
    select * from {{ ref('stg_ops__node_results') }}
),

ranked as (
    select
        *,
        row_number() over (
            partition by run_id
            order by started_at asc, program_name desc, invocation_id asc
        ) as place,
        row_number() over (
            partition by run_id, program_name, command_name
            order by started_at desc, invocation_id asc
        ) as attempt_from_last
    from invocations
),

rated as (
    select
        *,
        case
            when attempt_from_last > 1 then 0
            when run_status = 'failed' then 4
            when run_status = 'lost' then 3
            when run_status = 'interrupted' then 2
            when run_status = 'running' then 1
            else 0
        end as severity
    from ranked
),

runs as (
    select
        run_id,
        max(case when place = 1 then program_name end) as program_name,
        max(case when place = 1 then command_name end) as command_name,
        max(case when place = 1 then target_name end) as target_name,
        max(severity) as severity,
        count(*) as command_count,
        min(started_at) as started_at,
        max(ended_at) as ended_at,
        max(case when severity = 4 then error_message end) as error_message,
        max(database_bytes) as database_bytes
    from rated
    group by run_id
),

landed as (
    select
        invocations.run_id,
        sum(landings.rows_landed) as rows_landed,
        sum(landings.rows_rejected) as rows_rejected
    from landings
    inner join invocations
        on landings.invocation_id = invocations.invocation_id
    group by invocations.run_id
),

nodes as (
    select
        invocations.run_id,
        sum(
            case
                when node_results.resource_type not in ('test', 'unit_test')
                    then 0
                else 1
            end
        ) as test_count,
        sum(
            case
                when
                    node_results.resource_type in ('test', 'unit_test')
                    and node_results.node_status
                    in ('fail', 'error', 'runtime error')
                    then 1
                else 0
            end
        ) as failed_test_count
    from node_results
    inner join invocations
        on node_results.invocation_id = invocations.invocation_id
    group by invocations.run_id
),

final as (
    select
        runs.run_id,
        runs.program_name,
        runs.command_name,
        runs.target_name,
        runs.error_message,
        runs.database_bytes,
        runs.started_at,
        case runs.severity
            when 4 then 'failed'
            when 3 then 'lost'
            when 2 then 'interrupted'
            when 1 then 'running'
            else 'succeeded'
        end as run_status,
        case when runs.severity not in (1, 3) then runs.ended_at end
            as ended_at,
        cast(case
            when runs.severity not in (1, 3)
                then {{ seconds_between('runs.started_at', 'runs.ended_at') }}
        end as numeric(18, 3)) as duration_seconds,
        cast(runs.command_count as bigint) as command_count,
        cast(coalesce(landed.rows_landed, 0) as bigint) as rows_landed,
        cast(coalesce(landed.rows_rejected, 0) as bigint) as rows_rejected,
        cast(coalesce(nodes.test_count, 0) as bigint) as test_count,
        cast(coalesce(nodes.failed_test_count, 0) as bigint)
            as failed_test_count
    from runs
    left join landed on runs.run_id = landed.run_id
    left join nodes on runs.run_id = nodes.run_id
)

select * from final
