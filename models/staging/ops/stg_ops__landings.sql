with source as (
    {{ evidence_of(source('ops', 'landings')) }}
),

renamed as (
    select
        -- ids
        invocation_id,

        -- text
        source_name,
        table_name,

        -- numerics
        rows_landed,
        rows_rejected
    from source
)

select * from renamed
