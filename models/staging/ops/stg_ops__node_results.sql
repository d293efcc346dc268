with source as (
    {{ evidence_of(source('ops', 'node_results')) }}
),

renamed as (
    select
        -- ids
        invocation_id,
        unique_id as node_id,

        -- text
        resource_type,
        node_name,
        schema_name,
        owner_name,
        status as node_status,
        message as node_message,

        -- numerics
        cast(seconds as {{ dbt.type_numeric() }}) as duration_seconds,
        rows_affected,
        failures as failure_count
    from source
)

select * from renamed
