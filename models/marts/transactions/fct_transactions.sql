-- Grain: one row per transaction_id, in its latest version (latest event_at;
-- among versions of one moment the one that landed last).
-- amount and approved_amount add up over every dimension, within one currency.
{%- set versions = ref('int_transactions__bucketed') -%}
{%- set touched_days = ref('int_transaction_days__touched')
    if target.type == 'spark' %}
{{
    config(
        materialized='incremental',
        incremental_strategy=replace_keys(),
        unique_key='transaction_id',
        on_schema_change='fail',
        indexes=[
            {'columns': ['loaded_at']},
            {'columns': ['event_date']},
            {'columns': ['event_at'], 'type': 'brin'},
        ],
        pre_hook="{{ delete_rows_of_replaced_files(
            ref('int_transaction_files__replaced')
        ) }}"
    )
}}

-- by the time a load finished, so that one that finishes late is not missed
with transactions as (
    select * from {{ versions }}
    where {{ is_new_or_reopened(
        ref('int_transactions__reopened'),
        ref('int_transaction_files__replaced')
    ) }}
),

statuses as (
    select
        {{ normalize_text('transaction_status', 'upper') }}
            as transaction_status,
        is_approved
    from {{ ref('transaction_statuses') }}
),

ranked as (
    select
        *,
        row_number() over (
            partition by transaction_id
            order by
                event_at desc,
                loaded_at desc,
                file_checksum desc,
                file_line desc
        ) as version_recency
    from transactions
),

-- rows of a day lie together, so that a day is few pages; sorted here, before
-- the keys make rows wide
latest as (
    select * from ranked
    where version_recency = 1
    order by event_at
),

final as (
    select
        latest.transaction_id,
        {{ date_key('latest.event_at') }} as date_key,
        {{ text_key('latest.merchant_name') }}
            as merchant_key,
        {{ text_key('latest.category_name') }}
            as category_key,
        {{ text_key('latest.city_name') }}
            as city_key,
        {{ text_key('latest.payment_method') }}
            as payment_method_key,
        {{ text_key('latest.transaction_status') }}
            as transaction_status_key,
        latest.user_id,
        latest.amount_bucket,
        latest.currency_code,
        latest.amount,
        cast(
            case
                when statuses.is_approved then latest.amount else 0
            end as numeric(18, 4)
        ) as approved_amount,
        cast(latest.event_at as date) as event_date,
        latest.event_at,
        latest.loaded_at,
        latest.file_checksum,
        latest.file_line,
        latest.extra_fields
    from latest
    left join statuses
        on latest.transaction_status = statuses.transaction_status
    {% if is_incremental() %}
    -- the row that is there is a version like any other, of a touched day: an
    -- older late arrival loses against it
    where
        not exists (
            select 1
            from {{ this }} as standing
            where
                standing.transaction_id = latest.transaction_id
                and {{ is_on_touched_days(
                    'standing.event_date', touched_days, versions,
                    ref('int_transaction_files__replaced')
                ) }}
                and (
                    standing.event_at,
                    standing.loaded_at,
                    standing.file_checksum,
                    standing.file_line
                ) >= (
                    latest.event_at,
                    latest.loaded_at,
                    latest.file_checksum,
                    latest.file_line
                )
        )
    {% endif %}
)

select * from final
