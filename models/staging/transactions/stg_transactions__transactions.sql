with source as (
    select * from {{ source('transactions', 'transactions') }}
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
        {{ trim_text('merchant') }} as merchant_name,
        {{ trim_text('category') }} as category_name,
        {{ trim_text('city') }} as city_name,
        upper({{ trim_text('status') }}) as transaction_status,
        lower({{ trim_text('payment_method') }}) as payment_method,
        upper({{ trim_text('currency') }}) as currency_code,
        _file_name as file_name,

        -- numerics; in the row's currency
        amount,

        -- dates and timestamps
        {{ to_utc('event_ts') }} as event_at
    from source
)

select * from renamed
