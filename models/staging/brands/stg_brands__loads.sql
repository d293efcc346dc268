-- What all models of a build take as landed: a load that finishes while they
-- are built is not listed, and waits for the next build.
{{
    config(
        materialized='incremental',
        incremental_strategy=replace_all(),
        on_schema_change='fail',
        pre_hook='{{ delete_all_before_step() }}'
    )
}}

with source as (
    select * from {{ source('brands', '_dlt_loads') }}
),

renamed as (
    select
        -- ids
        load_id as dlt_load_id,

        -- booleans
        status = 0 as is_finished,

        -- dates and timestamps
        {{ to_utc('inserted_at') }} as loaded_at
    from source
)

select * from renamed
