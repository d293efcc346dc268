-- Loads as they are when it is asked, where stg_transactions__loads holds those
-- of the last build.
with source as (
    select * from {{ source('transactions', '_dlt_loads') }}
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
