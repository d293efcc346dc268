with transactions as (
    select * from {{ ref('stg_transactions__transactions') }}
),

replaced_files as (
    select * from {{ ref('int_transaction_files__replaced') }}
),

-- transactions whose row came from a file that was replaced: what else is
-- known of them decides anew
final as (
    select
        transactions.transaction_id,
        max(replaced_files.replaced_at) as replaced_at
    from transactions
    inner join replaced_files
        on
            transactions.dlt_load_id = replaced_files.dlt_load_id
            and transactions.file_checksum = replaced_files.file_checksum
    group by transactions.transaction_id
)

select * from final
