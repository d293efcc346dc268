with source as (
    {{ evidence_of(source('ops', 'steps')) }}
),

renamed as (
    select
        -- ids
        invocation_id,
        step_number,

        -- text
        step_name,
        status as step_status,
        said as step_message,

        -- dates and timestamps
        {{ to_utc('started_at') }} as started_at,
        {{ to_utc('ended_at') }} as ended_at
    from source
)

select * from renamed
