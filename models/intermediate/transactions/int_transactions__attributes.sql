{%- set attributes = [
    'merchant_name', 'category_name', 'city_name', 'payment_method'
] -%}
{{
    config(
        materialized='incremental',
        incremental_strategy=replace_keys(),
        unique_key=['attribute_name', 'attribute_value'],
        on_schema_change='fail',
        indexes=[
            {'columns': ['attribute_name', 'attribute_key'], 'unique': true}
        ],
        pre_hook="{{ delete_all_when_files_were_replaced(
            ref('int_transaction_files__replaced')
        ) }}"
    )
}}

with transactions as (
    select * from {{ ref('int_transactions__checked') }}
    where
        rejection_reason is null
        and {{ is_new_or_all_are(ref('int_transaction_files__replaced')) }}
),

-- one pass over all transactions serves every dimension of theirs
combined as (
    select
        {{ attributes | join(',\n        ') }},
        max(loaded_at) as loaded_at
    from transactions
    group by
        {{ attributes | join(',\n        ') }}
),

listed as (
    {% for attribute in attributes -%}
    select
        '{{ attribute }}' as attribute_name,
        {{ attribute }} as attribute_value,
        loaded_at
    from combined
    where {{ attribute }} is not null
    {% if not loop.last %}
    union all

    {% endif -%}
    {%- endfor %}
),

final as (
    select
        attribute_name,
        attribute_value,
        {{ text_key('attribute_value') }} as attribute_key,
        max(loaded_at) as loaded_at
    from listed
    group by attribute_name, attribute_value
)

select * from final
