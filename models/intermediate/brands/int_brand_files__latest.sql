with files as (
    select * from {{ ref('stg_brands__files') }}
),

loads as (
    select * from {{ ref('stg_brands__loads') }}
    where is_finished
),

ranked as (
    select
        files.*,
        row_number() over (
            partition by files.file_kind
            order by loads.loaded_at desc, files.landed_at desc
        ) as version_recency
    from files
    inner join loads on files.dlt_load_id = loads.dlt_load_id
),

final as (
    select
        file_kind,
        file_name,
        file_checksum,
        dlt_load_id,
        landed_at
    from ranked
    where version_recency = 1
)

select * from final
