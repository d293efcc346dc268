{#- every aggregate that the amount range filters -#}
{%- set marts = [
    'daily_transactions', 'hourly_transactions', 'daily_merchants'
] -%}
-- Counts and amounts of each amount bucket and currency are the same in every
-- aggregate that has buckets; that their totals are the fact's is another test.
with summed as (
    {% for mart in marts -%}
    select
        '{{ mart }}' as mart_name,
        amount_bucket,
        currency_code,
        sum(transaction_count) as transaction_count,
        sum(approved_count) as approved_count,
        sum(amount) as amount,
        sum(approved_amount) as approved_amount
    from {{ ref(mart) }}
    group by amount_bucket, currency_code

    {% if not loop.last -%}
    union all

    {% endif -%}
    {%- endfor %}
)

select
    amount_bucket,
    currency_code
from summed
group by amount_bucket, currency_code
having
    count(*) != {{ marts | length }}
    or min(transaction_count) != max(transaction_count)
    or min(approved_count) != max(approved_count)
    or min(amount) != max(amount)
    or min(approved_amount) != max(approved_amount)
