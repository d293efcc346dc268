with attributes as (
    select * from {{ ref('int_transactions__attributes') }}
),

named as (
    select attribute_value as city_name
    from attributes
    where attribute_name = 'city_name'
),

unioned as (
    select city_name from named
    union all
    select cast(null as {{ dbt.type_string() }}) as city_name
),

final as (
    select
        {{ text_key('city_name') }} as city_key,
        {{ name_or_unknown('city_name') }} as city_name,
        city_name is null as is_unknown
    from unioned
)

select * from final
