-- Grain: one row per day (UTC), source, stage and reason: what is in no mart,
-- and why. Counts add up over everything.
with transactions as (
    select * from {{ ref('rejected_transactions') }}
),

brand_rejects as (
    select * from {{ ref('stg_brands__rejects') }}
),

brand_loads as (
    select * from {{ ref('stg_brands__loads') }}
),

movie_values as (
    select * from {{ ref('rejected_movie_values') }}
),

unioned as (
    select
        'transactions' as source_name,
        rejection_stage,
        reason_code,
        loaded_at as rejected_at
    from transactions

    union all

    select
        'brands' as source_name,
        'unread' as rejection_stage,
        brand_rejects.reason_code,
        brand_loads.loaded_at as rejected_at
    from brand_rejects
    inner join brand_loads
        on brand_rejects.dlt_load_id = brand_loads.dlt_load_id

    union all

    select
        'tmdb' as source_name,
        'unread' as rejection_stage,
        reason_code,
        pulled_at as rejected_at
    from movie_values
),

final as (
    select
        source_name,
        rejection_stage,
        reason_code,
        cast(rejected_at as date) as date_day,
        count(*) as rejected_count
    from unioned
    group by
        source_name, rejection_stage, reason_code, cast(rejected_at as date)
)

select * from final
