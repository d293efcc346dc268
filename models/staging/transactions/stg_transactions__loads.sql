-- What all models of a build take as landed: a load that finishes while they
-- are built is not listed, and waits for the next build.
{{
    config(
        materialized='incremental',
        incremental_strategy=replace_all(),
        on_schema_change='fail',
        indexes=[{'columns': ['dlt_load_id'], 'unique': true}],
        pre_hook='{{ delete_all_before_step() }}',
        post_hook="{{ renew_statistics(
            'dlt_load_id, is_finished, loaded_at'
        ) }}"
    )
}}

with loads as (
    select * from {{ ref('stg_transactions__loads_now') }}
)

select
    dlt_load_id,
    is_finished,
    loaded_at
from loads
