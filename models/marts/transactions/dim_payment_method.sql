with attributes as (
    select * from {{ ref('int_transactions__attributes') }}
),

named as (
    select attribute_value as payment_method
    from attributes
    where attribute_name = 'payment_method'
),

unioned as (
    select payment_method from named
    union all
    select cast(null as {{ dbt.type_string() }}) as payment_method
),

final as (
    select
        {{ text_key('payment_method') }}
            as payment_method_key,
        {{ name_or_unknown('payment_method') }} as payment_method,
        payment_method is null as is_unknown
    from unioned
)

select * from final
