with attributes as (
    select * from {{ ref('int_transactions__attributes') }}
),

named as (
    select attribute_value as category_name
    from attributes
    where attribute_name = 'category_name'
),

unioned as (
    select category_name from named
    union all
    select cast(null as {{ dbt.type_string() }}) as category_name
),

final as (
    select
        {{ text_key('category_name') }}
            as category_key,
        {{ name_or_unknown('category_name') }} as category_name,
        category_name is null as is_unknown
    from unioned
)

select * from final
