-- Grain: one row per transaction_id and change of its status, in the order of
-- events; the first version known is a change from the unknown status.
-- Count changes over everything; the amount is the transaction's at that
-- moment, so that it adds up over transactions of one change_number only.
-- seconds_since_previous adds up over the changes of a transaction.
{%- set checked = ref('int_transactions__checked') -%}
{%- set reopened = ref('int_transactions__reopened') -%}
{%- set replaced_files = ref('int_transaction_files__replaced') -%}
{%- set touched_days = ref('int_transaction_days__touched')
    if target.type == 'spark' %}
{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        indexes=[{'columns': ['loaded_at']}, {'columns': ['changed_date']}],
        pre_hook="{{ delete_touched_transactions(
            ref('int_transactions__checked'),
            ref('int_transactions__reopened'),
            ref('int_transaction_files__replaced'),
            ref('int_transaction_days__touched') if target.type == 'spark',
            'changed_date'
        ) }}"
    )
}}

-- one new version may change what every other one of its transaction means
with versions as (
    select * from {{ checked }}
    where
        rejection_reason is null
        and {{ is_touched(checked, reopened, replaced_files) }}
        and {{ is_on_touched_days(
            'event_at', touched_days, checked, replaced_files
        ) }}
),

-- in the order in which fct_transactions takes the last one
ordered as (
    select
        *,
        lag(transaction_status) over (
            partition by transaction_id
            order by event_at, loaded_at, file_checksum, file_line
        ) as previous_status,
        row_number() over (
            partition by transaction_id
            order by event_at, loaded_at, file_checksum, file_line
        ) as version_number
    from versions
),

-- ordered by the same columns, so that one sort serves both steps
changes as (
    select
        *,
        row_number() over (
            partition by transaction_id
            order by event_at, loaded_at, file_checksum, file_line
        ) as change_number,
        lag(event_at) over (
            partition by transaction_id
            order by event_at, loaded_at, file_checksum, file_line
        ) as previous_changed_at
    from ordered
    where
        version_number = 1
        or coalesce(previous_status, '') != coalesce(transaction_status, '')
),

final as (
    select
        transaction_id,
        cast(change_number as bigint) as change_number,
        {{ date_key('event_at') }} as date_key,
        {{ text_key('merchant_name') }}
            as merchant_key,
        {{ text_key('category_name') }}
            as category_key,
        {{ text_key('city_name') }} as city_key,
        {{ text_key('payment_method') }}
            as payment_method_key,
        {{ text_key('transaction_status') }}
            as transaction_status_key,
        {{ text_key('previous_status') }}
            as previous_transaction_status_key,
        user_id,
        currency_code,
        amount,
        event_at as changed_at,
        cast(event_at as date) as changed_date,
        previous_changed_at,
        cast(
            {{ dbt.datediff('previous_changed_at', 'event_at', 'second') }}
            as bigint
        ) as seconds_since_previous,
        loaded_at
    from changes
)

select * from final
