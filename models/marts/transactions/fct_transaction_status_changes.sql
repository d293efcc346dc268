-- Grain: one row per transaction_id and change of its status, in the order of
-- events; the first version known is a change from the unknown status.
-- Count changes over everything; the amount is the transaction's at that
-- moment, so that it adds up over transactions of one change_number only.
-- seconds_since_previous adds up over the changes of a transaction.
{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key='transaction_id',
        on_schema_change='fail',
        indexes=[{'columns': ['loaded_at']}, {'columns': ['changed_date']}],
        pre_hook='{{ delete_reopened_transactions() }}'
    )
}}
-- depends_on: {{ ref('int_transaction_files__replaced') }}
-- depends_on: {{ ref('int_transactions__reopened') }}

-- one new version may change what every other one of its transaction means
with versions as (
    select * from {{ ref('int_transactions__checked') }}
    where rejection_reason is null
    {% if is_incremental() %}
        and transaction_id in ({{ touched_transactions() }})
    {% endif %}
),

keyed as (
    select
        transaction_id,
        merchant_name,
        category_name,
        city_name,
        payment_method,
        {{ text_key('transaction_status') }}
            as transaction_status_key,
        user_id,
        currency_code,
        amount,
        event_at,
        loaded_at,
        file_checksum,
        file_line
    from versions
),

-- the order in which fct_transactions takes the last one
ordered as (
    select
        *,
        lag(transaction_status_key) over (
            partition by transaction_id
            order by event_at, loaded_at, file_checksum, file_line
        ) as version_before_status_key,
        row_number() over (
            partition by transaction_id
            order by event_at, loaded_at, file_checksum, file_line
        ) as version_number
    from keyed
),

changes as (
    select
        *,
        row_number() over (
            partition by transaction_id
            order by version_number
        ) as change_number,
        lag(event_at) over (
            partition by transaction_id
            order by version_number
        ) as previous_changed_at
    from ordered
    where
        version_number = 1
        or version_before_status_key != transaction_status_key
),

final as (
    select
        transaction_id,
        change_number,
        {{ date_key('event_at') }} as date_key,
        {{ text_key('merchant_name') }}
            as merchant_key,
        {{ text_key('category_name') }}
            as category_key,
        {{ text_key('city_name') }} as city_key,
        {{ text_key('payment_method') }}
            as payment_method_key,
        transaction_status_key,
        coalesce(
            version_before_status_key,
            {{ dbt_utils.generate_surrogate_key([
                'cast(null as ' ~ dbt.type_string() ~ ')'
            ]) }}
        ) as previous_transaction_status_key,
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
