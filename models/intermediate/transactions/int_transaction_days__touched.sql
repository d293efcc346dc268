{{
    config(
        materialized='incremental',
        incremental_strategy=replace_keys(),
        unique_key='event_date',
        on_schema_change='fail'
    )
}}
{%- set checked = ref('int_transactions__checked') -%}
{%- set reopened = ref('int_transactions__reopened') -%}
{%- set replaced_files = ref('int_transaction_files__replaced') %}

with versions as (
    select
        transaction_id,
        event_at,
        loaded_at
    from {{ checked }}
    where
        rejection_reason is null
        and {{ is_touched(checked, reopened, replaced_files) }}
),

reopened as (
    select * from {{ reopened }}
    where {{ is_newly_replaced(replaced_files) }}
),

replaced_files as (
    select * from {{ replaced_files }}
    where {{ is_newly_replaced(replaced_files) }}
),

landed as (
    select * from {{ ref('stg_transactions__transactions') }}
),

touches as (
    select
        transaction_id,
        event_at,
        loaded_at
    from versions
    union all
    -- the reopened transaction itself; it touches no day directly
    select
        transaction_id,
        cast(null as timestamp) as event_at,
        replaced_at as loaded_at
    from reopened
),

touched as (
    -- a new version may take its transaction from the days of all others
    select
        event_at,
        max(loaded_at) over (partition by transaction_id) as loaded_at
    from touches
    union all
    -- days of versions that no longer count
    select
        landed.event_at,
        replaced_files.replaced_at as loaded_at
    from landed
    inner join replaced_files
        on
            landed.dlt_load_id = replaced_files.dlt_load_id
            and landed.file_checksum = replaced_files.file_checksum
),

final as (
    select
        cast(event_at as date) as event_date,
        max(loaded_at) as loaded_at
    from touched
    where event_at is not null
    group by cast(event_at as date)
)

select * from final
