{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        indexes=[
            {'columns': ['transaction_id']},
            {'columns': ['loaded_at']},
        ],
        pre_hook="{{ delete_rows_of_replaced_files(
            ref('int_transaction_files__replaced')
        ) }}",
        post_hook="{{ renew_statistics('loaded_at') }}"
    )
}}

with transactions as (
    select * from {{ ref('stg_transactions__transactions') }}
    where {{ is_of_new_load(ref('stg_transactions__loads')) }}
),

-- a load that has not finished is not there yet
loads as (
    select * from {{ ref('stg_transactions__loads') }}
    where is_finished
),

replaced_files as (
    select * from {{ ref('int_transaction_files__replaced') }}
),

landed as (
    select
        transactions.*,
        loads.loaded_at
    from transactions
    inner join loads on transactions.dlt_load_id = loads.dlt_load_id
    left join replaced_files
        on
            transactions.dlt_load_id = replaced_files.dlt_load_id
            and transactions.file_checksum = replaced_files.file_checksum
    where replaced_files.dlt_load_id is null
),

{{ judged(
    'landed', ref('currencies'), ref('transaction_statuses')
) }}

select * from judged
