-- Card spend at merchants of a brand is the same in the fact, by day and by
-- brand: what a mart holds less what the fact holds is 0. By brand there is the
-- reporting currency only.
with facts as (
    select * from {{ ref('fct_transactions') }}
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

brands as (
    select * from {{ ref('dim_brand') }}
),

fact as (
    select
        brands.brand_name,
        {{ name_or_unknown('facts.currency_code') }} as currency_code,
        count(*) as transaction_count,
        sum(facts.approved_amount) as approved_amount
    from facts
    inner join merchants
        on facts.merchant_key = merchants.merchant_key
    inner join brands
        on merchants.brand_key = brands.brand_key
    where merchants.is_brand_affiliated
    group by brands.brand_name, {{ name_or_unknown('facts.currency_code') }}
),

balanced as (
    select
        'daily_merchants' as mart_name,
        brand_name,
        currency_code,
        transaction_count,
        approved_amount
    from {{ ref('daily_merchants') }}
    where is_brand_affiliated

    union all

    select
        'brand_performance' as mart_name,
        brand_name,
        card_currency_code as currency_code,
        card_transaction_count as transaction_count,
        card_approved_amount as approved_amount
    from {{ ref('brand_performance') }}

    {% for mart in ['daily_merchants', 'brand_performance'] -%}
    union all

    select
        '{{ mart }}' as mart_name,
        brand_name,
        currency_code,
        -transaction_count as transaction_count,
        -approved_amount as approved_amount
    from fact
    {% if mart == 'brand_performance' -%}
    where currency_code = '{{ var("reporting_currency") }}'
    {%- endif %}

    {% endfor %}
)

select
    mart_name,
    brand_name,
    currency_code,
    sum(transaction_count) as surplus_transactions,
    sum(approved_amount) as surplus_approved_amount
from balanced
group by mart_name, brand_name, currency_code
having
    sum(transaction_count) != 0
    or sum(approved_amount) != 0
