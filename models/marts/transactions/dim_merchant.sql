with attributes as (
    select * from {{ ref('int_transactions__attributes') }}
),

-- spelled as transactions and brands are
merchant_brands as (
    select
        {{ normalize_text('merchant_name') }} as merchant_name,
        {{ normalize_text('brand_name') }} as brand_name
    from {{ ref('merchant_brands') }}
),

named as (
    select attribute_value as merchant_name
    from attributes
    where attribute_name = 'merchant_name'
),

unioned as (
    select merchant_name from named
    union all
    select cast(null as {{ dbt.type_string() }}) as merchant_name
),

final as (
    select
        {{ text_key('unioned.merchant_name') }} as merchant_key,
        {{ text_key('merchant_brands.brand_name') }} as brand_key,
        {{ name_or_unknown('unioned.merchant_name') }} as merchant_name,
        merchant_brands.brand_name is not null as is_brand_affiliated,
        unioned.merchant_name is null as is_unknown
    from unioned
    left join merchant_brands
        on unioned.merchant_name = merchant_brands.merchant_name
)

select * from final
