{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='event_day',
        on_schema_change='fail'
    )
}}
-- depends_on: {{ ref('int_transaction_files__replaced') }}
-- depends_on: {{ ref('int_transactions__reopened') }}
-- depends_on: {{ ref('stg_transactions__transactions') }}
{%- set files_count = not is_incremental() or files_were_replaced() %}

with versions as (
    select
        transaction_id,
        event_at,
        loaded_at
    from {{ ref('int_transactions__checked') }}
    where
        rejection_reason is null
        {% if is_incremental() %}
            and transaction_id in ({{ touched_transactions() }})
        {% endif %}
),

{% if files_count %}
    reopened as (
        select * from {{ ref('int_transactions__reopened') }}
        {% if is_incremental() %}
            where {{ is_new('replaced_at') }}
        {% endif %}
    ),

    -- days of versions that stand nowhere any more
    removed as (
        select
            transactions.event_at,
            replaced_files.replaced_at
        from {{ ref('stg_transactions__transactions') }} as transactions
        inner join {{ ref('int_transaction_files__replaced') }}
            as replaced_files
            on
                transactions.dlt_load_id = replaced_files.dlt_load_id
                and transactions.file_checksum = replaced_files.file_checksum
        {% if is_incremental() %}
            where {{ is_new('replaced_files.replaced_at') }}
        {% endif %}
    ),
{% endif %}

touches as (
    select
        transaction_id,
        event_at,
        loaded_at
    from versions
    {% if files_count %}
        union all
        -- a touch of the transaction, on no day of its own
        select
            transaction_id,
            cast(null as timestamp) as event_at,
            replaced_at as loaded_at
        from reopened
    {% endif %}
),

-- a new version may take its transaction from the days of all others
touched as (
    select
        event_at,
        max(loaded_at) over (partition by transaction_id) as loaded_at
    from touches
    {% if files_count %}
        union all
        select
            event_at,
            replaced_at as loaded_at
        from removed
    {% endif %}
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
