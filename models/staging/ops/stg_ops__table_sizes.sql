with source as (
    {{ evidence_of(source('ops', 'table_sizes')) }}
),

renamed as (
    select
        -- ids
        invocation_id,

        -- text
        schema_name,
        table_name,

        -- numerics
        bytes as size_bytes,
        estimated_rows
    from source
)

select * from renamed
