with transactions as (
    select * from {{ ref('int_transactions__checked') }}
    where rejection_reason is null
),

amount_buckets as (
    select
        amount_bucket,
        lower_bound,
        lead(lower_bound) over (order by lower_bound) as next_lower_bound
    from {{ ref('amount_buckets') }}
),

bucketed as (
    select
        transactions.transaction_id,
        transactions.user_id,
        transactions.dlt_load_id,
        transactions.file_checksum,
        transactions.file_line,
        transactions.merchant_name,
        transactions.category_name,
        transactions.city_name,
        transactions.transaction_status,
        transactions.payment_method,
        transactions.currency_code,
        transactions.extra_fields,
        transactions.amount,
        transactions.event_at,
        transactions.loaded_at,
        amount_buckets.amount_bucket
    from transactions
    left join amount_buckets
        on
            transactions.amount >= amount_buckets.lower_bound
            and (
                transactions.amount < amount_buckets.next_lower_bound
                or amount_buckets.next_lower_bound is null
            )
)

select * from bucketed
