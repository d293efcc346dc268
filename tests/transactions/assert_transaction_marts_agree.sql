{#- every aggregate of the fact, whose measures the fact's rows must give -#}
{%- set marts = [
    'daily_transactions', 'hourly_transactions', 'daily_merchants',
    'merchant_ranking'
] -%}
{%- set mart_amounts = {'merchant_ranking': 'total_amount'} -%}
-- Counts and amounts of each currency are the same in the fact and in every
-- mart made of it: what a mart holds less what the fact holds is 0.
with transactions as (
    select * from {{ ref('fct_transactions') }}
),

statuses as (
    select * from {{ ref('dim_transaction_status') }}
),

fact as (
    select
        {{ name_or_unknown('transactions.currency_code') }} as currency_code,
        count(*) as transaction_count,
        count(case when statuses.is_approved then 1 end) as approved_count,
        sum(transactions.amount) as amount,
        sum(transactions.approved_amount) as approved_amount
    from transactions
    left join statuses
        on
            transactions.transaction_status_key
            = statuses.transaction_status_key
    group by transactions.currency_code
),

balanced as (
    {% for mart in marts -%}
    select
        '{{ mart }}' as mart_name,
        currency_code,
        transaction_count,
        approved_count,
        {{ mart_amounts.get(mart, 'amount') }} as amount,
        approved_amount
    from {{ ref(mart) }}

    union all

    select
        '{{ mart }}' as mart_name,
        currency_code,
        -transaction_count as transaction_count,
        -approved_count as approved_count,
        -amount as amount,
        -approved_amount as approved_amount
    from fact

    {% if not loop.last -%}
    union all

    {% endif -%}
    {%- endfor %}
)

select
    mart_name,
    currency_code,
    sum(transaction_count) as surplus_transactions,
    sum(approved_count) as surplus_approved,
    sum(amount) as surplus_amount,
    sum(approved_amount) as surplus_approved_amount
from balanced
group by mart_name, currency_code
having
    sum(transaction_count) != 0
    or sum(approved_count) != 0
    or sum(amount) != 0
    or sum(approved_amount) != 0
