with source as (
    {{ evidence_of(source('ops', 'invocations')) }}
),

renamed as (
    select
        -- ids
        invocation_id,
        run_id,

        -- text
        program as program_name,
        command as command_name,
        target_name,
        version as program_version,
        status as run_status,
        error as error_message,

        -- numerics
        exit_code,
        database_bytes,

        -- booleans
        is_partial,

        -- dates and timestamps
        {{ to_utc('started_at') }} as started_at,
        {{ to_utc('ended_at') }} as ended_at
    from source
)

select * from renamed
