with source as (
    select * from {{ source('transactions', 'transactions') }}
    where {{ is_of_load_not_there(source('transactions', 'transactions')) }}
),

renamed as (
    select
        -- ids
        cast(transaction_id as {{ dbt.type_string() }}) as transaction_id,
        cast(user_id as {{ dbt.type_string() }}) as user_id,
        _dlt_load_id as dlt_load_id,
        cast(_file_checksum as {{ dbt.type_string() }}) as file_checksum,
        _file_line as file_line,

        -- text
        {{ normalize_text('merchant') }} as merchant_name,
        {{ normalize_text('category') }} as category_name,
        {{ normalize_text('city') }} as city_name,
        {{ normalize_text('status', 'upper') }} as transaction_status,
        {{ normalize_text('payment_method', 'lower') }} as payment_method,
        {{ normalize_text('currency', 'upper') }} as currency_code,
        _file_name as file_name,
        cast(extra_fields as {{ dbt.type_string() }}) as extra_fields,

        -- numerics; in the row's currency
        amount,

        -- dates and timestamps
        {{ to_utc('event_ts') }} as event_at
    from source
)

select * from renamed
