-- Of the rows that one load brought from one file, at most the share that the
-- variable transactions_max_marked_share allows break a rule: with more, file
-- and rules do not fit, and its facts would be missing without a word. One row
-- alone never fails a build. One row per load, file and reason, with what to do
-- about it.
{{ config(meta={'says': 'message'}) }}

with rejected as (
    select * from {{ ref('rejected_transactions') }}
    where rejection_stage = 'marked'
),

files as (
    select * from {{ ref('stg_transactions__files') }}
),

rules as (
    select * from {{ ref('transaction_rules') }}
),

landed as (
    select
        dlt_load_id,
        file_checksum,
        max(file_name) as file_name,
        sum(rows_landed_count) as landed_count
    from files
    group by dlt_load_id, file_checksum
),

marked as (
    select
        dlt_load_id,
        file_checksum,
        count(*) as marked_count
    from rejected
    group by dlt_load_id, file_checksum
),

unfit as (
    select
        landed.dlt_load_id,
        landed.file_checksum,
        landed.file_name,
        landed.landed_count,
        marked.marked_count
    from marked
    inner join landed
        on
            marked.dlt_load_id = landed.dlt_load_id
            and marked.file_checksum = landed.file_checksum
    where
        marked.marked_count > 1
        and marked.marked_count
        > landed.landed_count
        * cast({{ var('transactions_max_marked_share') }} as numeric(9, 8))
),

broken_values as (
    select
        dlt_load_id,
        file_checksum,
        reason_code,
        broken_value,
        count(*) as row_count
    from rejected
    group by dlt_load_id, file_checksum, reason_code, broken_value
),

ranked as (
    select
        *,
        row_number() over (
            partition by dlt_load_id, file_checksum, reason_code
            order by row_count desc, broken_value asc
        ) as value_place
    from broken_values
),

reasons as (
    select
        dlt_load_id,
        file_checksum,
        reason_code,
        sum(row_count) as row_count,
        max(case when value_place = 1 then broken_value end) as first_value,
        max(case when value_place = 2 then broken_value end) as second_value,
        max(case when value_place = 3 then broken_value end) as third_value
    from ranked
    group by dlt_load_id, file_checksum, reason_code
),

final as (
    select
        unfit.dlt_load_id,
        unfit.file_name,
        unfit.landed_count,
        reasons.reason_code,
        reasons.row_count,
        {{ dbt.concat([
            "unfit.file_name",
            "': '",
            "cast(reasons.row_count as " ~ dbt.type_string() ~ ")",
            "' of '",
            "cast(unfit.landed_count as " ~ dbt.type_string() ~ ")",
            "' rows are marked '",
            "reasons.reason_code",
            "coalesce(" ~ dbt.concat(["' '", "reasons.first_value"]) ~ ", '')",
            "coalesce(" ~ dbt.concat(["', '", "reasons.second_value"]) ~ ", '')",
            "coalesce(" ~ dbt.concat(["', '", "reasons.third_value"]) ~ ", '')",
            "'. '",
            "rules.remedy",
            "', then: dbt build'",
        ]) }} as message
    from unfit
    inner join reasons
        on
            unfit.dlt_load_id = reasons.dlt_load_id
            and unfit.file_checksum = reasons.file_checksum
    inner join rules on reasons.reason_code = rules.reason_code
)

select * from final
order by row_count desc
