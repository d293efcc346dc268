-- Grain: one row per marquee run and step. duration_seconds adds up over the
-- steps of a run.
{{ config(materialized='view') }}

with steps as (
    select * from {{ ref('stg_ops__steps') }}
),

invocations as (
    select * from {{ ref('stg_ops__invocations') }}
),

final as (
    select
        steps.invocation_id,
        steps.step_number,
        invocations.run_id,
        steps.step_name,
        steps.step_status,
        steps.step_message,
        invocations.started_at as run_started_at,
        steps.started_at,
        steps.ended_at,
        {{ seconds_between('steps.started_at', 'steps.ended_at') }}
            as duration_seconds
    from steps
    inner join invocations on steps.invocation_id = invocations.invocation_id
)

select * from final
