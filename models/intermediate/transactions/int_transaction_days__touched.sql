{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='event_day',
        on_schema_change='fail'
    )
}}
{%- set replaced_since = '1 = 1' -%}
{%- if is_incremental() -%}
    {%- set replaced_since = '1 = 0' -%}
    {%- if files_were_replaced() -%}
        {%- set replaced_since = is_new('replaced_at') -%}
    {%- endif -%}
{%- endif %}

with versions as (
    select
        transaction_id,
        event_at,
        loaded_at
    from {{ ref('int_transactions__checked') }}
    where rejection_reason is null
    {% if is_incremental() %}
        and transaction_id in ({{ touched_transactions() }})
    {% endif %}
),

reopened as (
    select * from {{ ref('int_transactions__reopened') }}
    where {{ replaced_since }}
),

replaced_files as (
    select * from {{ ref('int_transaction_files__replaced') }}
    where {{ replaced_since }}
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
    -- of the transaction, on no day of its own
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
    -- days of versions that stand nowhere any more
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
        cast(event_at as date) as event_day,
        max(loaded_at) as loaded_at
    from touched
    where event_at is not null
    group by cast(event_at as date)
    {% if is_incremental() %}
        -- a broken row brings its transaction here, but touches no day
        having {{ is_new('max(loaded_at)') }}
    {% endif %}
)

select * from final
