with statuses as (
    select * from {{ ref('transaction_statuses') }}
),

unioned as (
    select
        {{ normalize_text('transaction_status', 'upper') }}
            as transaction_status,
        status_description,
        is_approved,
        is_final
    from statuses

    union all

    select
        cast(null as {{ dbt.type_string() }}) as transaction_status,
        'The transaction came without a status' as status_description,
        false as is_approved,
        false as is_final
),

final as (
    select
        {{ text_key('transaction_status') }}
            as transaction_status_key,
        {{ name_or_unknown('transaction_status') }} as transaction_status,
        status_description,
        is_approved,
        is_final,
        transaction_status is null as is_unknown
    from unioned
)

select * from final
