with source as (
    {{ evidence_of(source('ops', 'freshness')) }}
),

renamed as (
    select
        -- ids
        invocation_id,

        -- text
        source_name,
        table_name,
        status as freshness_status,

        -- dates and timestamps
        {{ to_utc('max_loaded_at') }} as max_loaded_at,
        {{ to_utc('checked_at') }} as checked_at
    from source
)

select * from renamed
