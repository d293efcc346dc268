{#
    CTEs that judge rows by the business rules; the last of them is `judged`. One
    place for the rules: a row is judged alike when it is built and before that.
    `landed` is a CTE with the columns of stg_transactions__transactions and
    loaded_at.
#}
{% macro judged(landed, currencies, statuses) -%}
{%- set earliest = earliest_date(var('transactions_earliest_date')) -%}
-- seeds are read as transactions are, however they are spelled
currencies as (
    select
        {{ normalize_text('currency_code', 'upper') }} as currency_code,
        largest_amount
    from {{ currencies }}
),

statuses as (
    select
        {{ normalize_text('transaction_status', 'upper') }}
            as transaction_status
    from {{ statuses }}
),

judged as (
    select
        {{ landed }}.transaction_id,
        {{ landed }}.user_id,
        {{ landed }}.dlt_load_id,
        {{ landed }}.file_checksum,
        {{ landed }}.file_line,
        {{ landed }}.merchant_name,
        {{ landed }}.category_name,
        {{ landed }}.city_name,
        {{ landed }}.transaction_status,
        {{ landed }}.payment_method,
        {{ landed }}.currency_code,
        {{ landed }}.file_name,
        {{ landed }}.extra_fields,
        {{ landed }}.amount,
        {{ landed }}.event_at,
        {{ landed }}.loaded_at,
        case
            when {{ landed }}.amount < 0 then 'negative_amount'
            when
                {{ landed }}.amount > coalesce(
                    currencies.largest_amount,
                    {{ var('transactions_max_amount') }}
                )
                then 'absurd_amount'
            when
                {{ landed }}.transaction_status is not null
                and statuses.transaction_status is null
                then 'unknown_status'
            when
                {{ landed }}.currency_code is not null
                and currencies.currency_code is null
                then 'unknown_currency'
            when
                {{ landed }}.event_at < cast(
                    '{{ earliest }}' as date
                )
                then 'ancient_timestamp'
            when
                {{ landed }}.event_at >= cast(
                    '{{ calendar_end() }}' as date
                )
                or {{ landed }}.event_at > {{ dbt.dateadd(
                    'hour',
                    var('transactions_future_tolerance_hours'),
                    landed ~ '.loaded_at'
                ) }}
                then 'future_timestamp'
        end as rejection_reason
    from {{ landed }}
    left join currencies
        on {{ landed }}.currency_code = currencies.currency_code
    left join statuses
        on {{ landed }}.transaction_status = statuses.transaction_status
)
{%- endmacro %}
