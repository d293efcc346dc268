-- Grain: one row per transaction_id, as in fct_transactions, with fields that
-- the contract does not name as columns: those of the variable
-- transactions_extra_fields; without any there is no such model.
-- amount and approved_amount add up as they do in the fact.
{%- set fields = extra_field_columns(
    var('transactions_extra_fields'), 'fct_transactions'
) %}
{{
    config(
        materialized='view',
        enabled=var('transactions_extra_fields') | length > 0,
        contract={'enforced': false}
    )
}}

with transactions as (
    select * from {{ ref('fct_transactions') }}
),

final as (
    select
        transactions.*
        {%- for column, field in fields.items() %},
        {{ json_text('transactions.extra_fields', field) }} as {{ column }}
        {%- endfor %}
    from transactions
)

select * from final
