-- Grain: one row per command, source and raw table. Rows add up over
-- everything.
{{ config(materialized='view') }}

with landings as (
    select * from {{ ref('stg_ops__landings') }}
),

invocations as (
    select * from {{ ref('stg_ops__invocations') }}
),

final as (
    select
        landings.invocation_id,
        landings.source_name,
        landings.table_name,
        invocations.run_id,
        invocations.run_status as load_status,
        landings.rows_landed,
        landings.rows_rejected,
        invocations.started_at,
        invocations.ended_at
    from landings
    inner join invocations
        on landings.invocation_id = invocations.invocation_id
)

select * from final
